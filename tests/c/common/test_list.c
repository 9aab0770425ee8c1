/* SPDX-License-Identifier: Apache-2.0 */
/* The intrusive list: order, removal while visiting, removing twice. */
#include "common/list.h"

#include "check.h"

struct item {
    int value;
    struct list link;
};

static void check_values(struct list *head, const int *values, size_t nr)
{
    size_t seen = 0;

    LIST_FOR_EACH(link, next, head)
    {
        CHECK(seen < nr);
        CHECK_EQ(LIST_ENTRY(link, struct item, link)->value, values[seen++]);
    }
    CHECK_EQ(seen, nr);
    for (struct list *it = head->prev; it != head; it = it->prev)
        CHECK_EQ(LIST_ENTRY(it, struct item, link)->value, values[--seen]);
    CHECK_EQ(seen, 0);
}

int main(void)
{
    struct item items[4] = {{.value = 0}, {.value = 1}, {.value = 2}, {.value = 3}};
    struct list head;

    list_init(&head);
    CHECK(list_empty(&head));
    CHECK(!list_pop_front(&head));

    list_push_back(&head, &items[1].link);
    list_push_front(&head, &items[0].link);
    list_push_back(&head, &items[3].link);
    list_insert_after(&items[1].link, &items[2].link);
    check_values(&head, (const int[]){0, 1, 2, 3}, 4);

    LIST_FOR_EACH(link, next, &head)
    {
        if (LIST_ENTRY(link, struct item, link)->value % 2 == 0)
            list_remove(link);
    }
    check_values(&head, (const int[]){1, 3}, 2);

    list_remove(&items[0].link); /* again: harmless */
    check_values(&head, (const int[]){1, 3}, 2);

    CHECK(list_pop_front(&head) == &items[1].link);
    CHECK(list_empty(&items[1].link));
    CHECK(list_pop_front(&head) == &items[3].link);
    CHECK(list_empty(&head));
    return 0;
}
