/* SPDX-License-Identifier: Apache-2.0 */
/* The table of nodes: what a process leaves, the next one finds; damage is dropped. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "endpoint/fuse/nodes.h"

static int table_make(void)
{
    int fd = memfd_create("nodes", MFD_CLOEXEC);

    CHECK(fd >= 0);
    CHECK(ftruncate(fd, (off_t)fuse_nodes_bytes()) == 0);
    return fd;
}

static struct fuse_node *add(struct fuse_nodes *nodes, const char *name)
{
    return fuse_nodes_add(nodes, (const uint8_t *)name, (uint32_t)strlen(name));
}

static struct fuse_node *find(struct fuse_nodes *nodes, const char *name)
{
    return fuse_nodes_by_name(nodes, (const uint8_t *)name, (uint32_t)strlen(name));
}

static void test_names_and_numbers(void)
{
    int fd = table_make();
    struct fuse_nodes *nodes;
    struct fuse_node *a, *b;
    uint64_t old;

    CHECK(fuse_nodes_map(fd, &nodes) == 0);
    CHECK(find(nodes, "a") == NULL);
    a = add(nodes, "a");
    b = add(nodes, "b");
    CHECK(a && b && a != b && a->id != b->id && a->id != FUSE_NODE_ROOT);
    CHECK(find(nodes, "a") == a && fuse_nodes_by_id(nodes, b->id) == b);
    a->lookups = 3;
    old = a->id;
    fuse_nodes_forget(nodes, a, 2);
    CHECK(find(nodes, "a") == a);
    a->readers = 1;
    fuse_nodes_forget(nodes, a, 1);
    CHECK(find(nodes, "a") == a); /* open */
    a->readers = 0;
    fuse_nodes_forget(nodes, a, 0);
    CHECK(find(nodes, "a") == NULL && fuse_nodes_by_id(nodes, old) == NULL);
    a = add(nodes, "a");
    CHECK(a && a->id != old); /* a number is never used again */
    fuse_nodes_unmap(nodes);
    close(fd);
}

static void test_the_next_process_finds_it(void)
{
    int fd = table_make();
    struct fuse_nodes *nodes;
    struct fuse_node *a;
    uint64_t id;

    CHECK(fuse_nodes_map(fd, &nodes) == 0);
    a = add(nodes, "a volume");
    a->lookups = 7;
    a->writers = 1;
    id = a->id;
    fuse_nodes_table(nodes)->initialized = 1;
    fuse_nodes_unmap(nodes);

    CHECK(fuse_nodes_map(fd, &nodes) == 0);
    CHECK(fuse_nodes_table(nodes)->initialized == 1);
    a = find(nodes, "a volume");
    CHECK(a && a->id == id && a->lookups == 7 && a->writers == 1);
    CHECK(fuse_nodes_at(nodes, fuse_nodes_index(nodes, a)) == a);
    CHECK(add(nodes, "another") != NULL);
    fuse_nodes_unmap(nodes);
    close(fd);
}

static void test_damage_is_dropped(void)
{
    int fd = table_make();
    struct fuse_nodes *nodes;
    struct fuse_node *a;

    CHECK(fuse_nodes_map(fd, &nodes) == 0);
    a = add(nodes, "sound");
    a->lookups = 1;
    a = add(nodes, "long");
    a->name_len = XSEG_NAME_MAX + 1;
    a = add(nodes, "moved");
    a->id ^= 1;
    fuse_nodes_unmap(nodes);

    CHECK(fuse_nodes_map(fd, &nodes) == 0);
    CHECK(find(nodes, "sound") && !find(nodes, "long") && !find(nodes, "moved"));
    fuse_nodes_table(nodes)->version = 99;
    fuse_nodes_unmap(nodes);
    CHECK(fuse_nodes_map(fd, &nodes) == -EPROTONOSUPPORT);
    CHECK(ftruncate(fd, 4096) == 0);
    CHECK(fuse_nodes_map(fd, &nodes) == -EINVAL);
    close(fd);
}

static void test_full(void)
{
    int fd = table_make();
    struct fuse_nodes *nodes;
    char name[16];

    CHECK(fuse_nodes_map(fd, &nodes) == 0);
    for (uint32_t i = 0; i < FUSE_NODES_MAX; i++) {
        snprintf(name, sizeof(name), "v%u", i);
        CHECK(add(nodes, name) != NULL);
    }
    CHECK(add(nodes, "one more") == NULL);
    fuse_nodes_forget(nodes, find(nodes, "v77"), 0);
    CHECK(add(nodes, "one more") != NULL);
    fuse_nodes_unmap(nodes);
    close(fd);
}

int main(void)
{
    test_names_and_numbers();
    test_the_next_process_finds_it();
    test_damage_is_dropped();
    test_full();
    return 0;
}
