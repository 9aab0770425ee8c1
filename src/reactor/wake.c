/* SPDX-License-Identifier: Apache-2.0 */
/* Getting a reactor out of its sleep (see wake.h). */
#include "reactor/wake.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

int reactor_wake_init(struct reactor_wake *wake)
{
    atomic_init(&wake->asleep, 0);
    wake->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return wake->fd < 0 ? -errno : 0;
}

void reactor_wake_fini(struct reactor_wake *wake)
{
    if (wake->fd >= 0)
        close(wake->fd);
    wake->fd = -1;
}

void reactor_wake_arm(struct reactor_wake *wake)
{
    /* Sequentially consistent on both sides: the store here and the reactor's look
     * at what was published must not pass one another; partner: reactor_wake_kick. */
    atomic_store(&wake->asleep, 1);
}

void reactor_wake_disarm(struct reactor_wake *wake)
{
    atomic_store_explicit(&wake->asleep, 0, memory_order_relaxed);
}

void reactor_wake_kick(struct reactor_wake *wake)
{
    uint64_t one = 1;
    int saved;

    /* The exchange makes one of many kickers pay for the system call. */
    if (!atomic_load(&wake->asleep) || !atomic_exchange(&wake->asleep, 0))
        return;
    saved = errno;
    /* -EAGAIN is a counter at its end: then the reactor is woken anyway. */
    if (write(wake->fd, &one, sizeof one) < 0)
        errno = saved;
}

void reactor_wake_drain(struct reactor_wake *wake)
{
    uint64_t count;

    if (read(wake->fd, &count, sizeof count) < 0)
        return;
}
