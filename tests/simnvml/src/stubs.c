/* SPDX-License-Identifier: Apache-2.0
 *
 * Weak stubs for every name in functions.txt; a hand-written function of the same name replaces its stub at link time.
 */
#include "sim.h"

#define SIM_FUNCTION(since, name)                                                           \
    SIM_API __attribute__((weak)) nvmlReturn_t name(const void *first);                     \
    SIM_API __attribute__((weak)) nvmlReturn_t name(const void *first) { return sim_stub(#name, first); }
#include "functions.inc"
