/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbd_fake_server: the endpoint over volumes in memory, for real clients.
 *
 * Prints the path of its socket, serves until its standard input ends, then stops in
 * order and checks that nothing was left behind.
 */
#include <unistd.h>

#include "server.h"

int main(void)
{
    static struct server s;
    char byte;

    server_start(&s, NULL);
    printf("%s\n", s.path);
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        continue;
    server_stop(&s);
    return 0;
}
