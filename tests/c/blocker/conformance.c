/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every backend must do, whatever it is made of:
 *
 *   test_blocker_conformance BACKEND [ENGINE [direct]]
 */
#include "blocker/conformance.h"

struct setup setup;
static struct server server;
struct server *const s = &server;
uint8_t page[XSEG_BUFFER_MAX_BYTES], got[XSEG_BUFFER_MAX_BYTES];

void fill(uint8_t *data, size_t size, uint64_t seed)
{
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(check_next(&seed) >> 24);
}

bool all(const uint8_t *data, size_t size, uint8_t value)
{
    for (size_t i = 0; i < size; i++)
        if (data[i] != value)
            return false;
    return true;
}

bool survives(void)
{
    return strcmp(setup.backend, "mem") != 0;
}

void restart(void)
{
    if (!survives())
        return;
    server_stop(s);
    server_start(s, &setup);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    setup.backend = argv[1];
    setup.engine = argc > 2 ? engine_or_skip(argv[2]) : "auto";
    setup.direct = argc > 3;
    make_root(setup.path);
    server_start(s, &setup);
    test_data();
    test_leases();
    test_presences();
    test_seals();
    test_notify();
    test_listing();
    test_generations();
    test_requests();
    test_model();
    server_stop(s);
    remove_root(setup.path);
    return 0;
}
