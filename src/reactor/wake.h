/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How another thread, or a signal handler, gets a reactor out of its sleep: a flag that
 * says the reactor sleeps, and an eventfd that is written only when it does.
 */
#ifndef REACTOR_WAKE_H
#define REACTOR_WAKE_H

#include <stdatomic.h>

struct reactor_wake {
    atomic_uint asleep; /* 1 while the reactor sleeps or is about to */
    int fd;             /* eventfd, non-blocking */
};

/** 0 or -errno. */
int reactor_wake_init(struct reactor_wake *wake);
void reactor_wake_fini(struct reactor_wake *wake);

/**
 * Announce the sleep.  The reactor looks once more at everything that others publish to
 * it after this, so that either it sees the news or the other sees the flag.
 */
void reactor_wake_arm(struct reactor_wake *wake);
void reactor_wake_disarm(struct reactor_wake *wake);

/** Called after publishing something.  Any thread; safe in a signal handler. */
void reactor_wake_kick(struct reactor_wake *wake);

/** Empty the eventfd. */
void reactor_wake_drain(struct reactor_wake *wake);

#endif
