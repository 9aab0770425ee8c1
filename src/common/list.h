/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intrusive doubly linked list: links live inside the elements, nothing is allocated.
 */
#ifndef COMMON_LIST_H
#define COMMON_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *prev, *next;
};

#define LIST_ENTRY(link, type, member)                                                 \
    ((type *)(void *)((char *)(link)-offsetof(type, member)))

/** Visit every element; `n` keeps the next one, so that the visited may be removed. */
#define LIST_FOR_EACH(it, n, head)                                                     \
    for (struct list *it = (head)->next, *n = it->next; it != (head);                  \
         it = n, n = it->next)

static inline void list_init(struct list *head)
{
    head->prev = head->next = head;
}

static inline bool list_empty(const struct list *head)
{
    return head->next == head;
}

static inline void list_insert_after(struct list *at, struct list *link)
{
    link->prev = at;
    link->next = at->next;
    at->next->prev = link;
    at->next = link;
}

static inline void list_push_back(struct list *head, struct list *link)
{
    list_insert_after(head->prev, link);
}

static inline void list_push_front(struct list *head, struct list *link)
{
    list_insert_after(head, link);
}

/** Unlink; the link is then an empty list, so removing twice is harmless. */
static inline void list_remove(struct list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

/** Take the first link, or NULL. */
static inline struct list *list_pop_front(struct list *head)
{
    struct list *link = head->next;
    if (link == head)
        return NULL;
    list_remove(link);
    return link;
}

#endif
