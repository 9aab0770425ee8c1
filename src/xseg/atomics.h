/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named atomic operations on words of the segment.
 *
 * The words are plain fixed-width integers in layout.h (the layout must read the same
 * from C and Python), so the compiler's builtins are used instead of _Atomic types.
 *
 * Pairing, in short (docs/format/segment.md has the whole list):
 *  - release/acquire hands over what was written before: a cell's sequence hands over
 * its value, a request's state hands over the request, a free map's bit the freed slot.
 *  - seq_cst where two parties each write one word and then read the other's, and at
 * least one must see the other ("store, then look"): doorbells and port states.  No
 * fences are used: ThreadSanitizer does not model them.
 *  - relaxed for counters, hints, and words that are checked again afterwards.
 */
#ifndef XSEG_ATOMICS_H
#define XSEG_ATOMICS_H

#include <stdbool.h>
#include <stdint.h>

static inline uint32_t load32_relaxed(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static inline uint32_t load32_acquire(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static inline uint32_t load32_seq(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static inline void store32_relaxed(uint32_t *p, uint32_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELAXED);
}

static inline void store32_release(uint32_t *p, uint32_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}

static inline void store32_seq(uint32_t *p, uint32_t v)
{
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);
}

/** Strong compare-and-swap, seq_cst: every change of a state is one of these. */
static inline bool cas32(uint32_t *p, uint32_t expected, uint32_t desired)
{
    return __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
}

static inline uint32_t exchange32_seq(uint32_t *p, uint32_t v)
{
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);
}

static inline uint32_t add32_seq(uint32_t *p, uint32_t v)
{
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
}

static inline uint32_t or32_acqrel(uint32_t *p, uint32_t v)
{
    return __atomic_fetch_or(p, v, __ATOMIC_ACQ_REL);
}

static inline uint32_t and32_acqrel(uint32_t *p, uint32_t v)
{
    return __atomic_fetch_and(p, v, __ATOMIC_ACQ_REL);
}

static inline uint64_t or64_acqrel(uint64_t *p, uint64_t v)
{
    return __atomic_fetch_or(p, v, __ATOMIC_ACQ_REL);
}

static inline uint64_t and64_acqrel(uint64_t *p, uint64_t v)
{
    return __atomic_fetch_and(p, v, __ATOMIC_ACQ_REL);
}

static inline uint64_t load64_relaxed(const uint64_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static inline uint64_t load64_acquire(const uint64_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static inline void store64_relaxed(uint64_t *p, uint64_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELAXED);
}

static inline void store64_release(uint64_t *p, uint64_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}

/** Strong compare-and-swap, acq_rel; `*expected` becomes what was there. */
static inline bool cas64(uint64_t *p, uint64_t *expected, uint64_t desired)
{
    return __atomic_compare_exchange_n(p, expected, desired, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

/** Add to a counter that has one writer: readers see old or new, never torn. */
static inline void count64(uint64_t *p, uint64_t n)
{
    store64_relaxed(p, load64_relaxed(p) + n);
}

/** Tell the processor that this is a spin loop. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
