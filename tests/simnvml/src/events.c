/* SPDX-License-Identifier: Apache-2.0
 *
 * Event sets: they can be made, filled and waited for; nothing ever happens on a simulated GPU, so waiting times out.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

#include "sim.h"

enum { SETS = 64, NVML_ERROR_TIMEOUT_CODE = 10 };

static struct {
    atomic_bool used;
} sets[SETS];

typedef void *event_set;

static bool valid(const void *set) {
    size_t at = (size_t)((const char *)set - (const char *)sets);
    return (const char *)set >= (const char *)sets && at < sizeof sets && at % sizeof *sets == 0 &&
           atomic_load(&sets[at / sizeof *sets].used);
}

SIM_API nvmlReturn_t nvmlEventSetCreate(event_set *set) {
    SIM_BEGIN();
    SIM_REQUIRE(set, NVML_ERROR_INVALID_ARGUMENT);
    for (int i = 0; i < SETS; i++) {
        bool expected = false;
        if (!atomic_compare_exchange_strong(&sets[i].used, &expected, true)) continue;
        *set = &sets[i];
        SIM_END(NVML_SUCCESS);
    }
    SIM_END(NVML_ERROR_MEMORY);
}

SIM_API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, nvml_ull types, event_set set) {
    SIM_BEGIN_DEVICE(device);
    nvml_ull supported;
    SIM_REQUIRE(valid(set), NVML_ERROR_INVALID_ARGUMENT);
    result = sim_ull(&call, &supported, "event.types");
    SIM_REQUIRE(result == NVML_SUCCESS, result);
    SIM_END(types & ~supported ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS);
}

static nvmlReturn_t wait_for_event(const char *function, event_set set, unsigned int milliseconds) {
    sim_call call;
    nvmlReturn_t result = sim_enter(&call, function);
    if (result != NVML_SUCCESS) return result;
    SIM_REQUIRE(valid(set), NVML_ERROR_INVALID_ARGUMENT);
    sim_leave(&call, NVML_SUCCESS); /* do not hold an old scenario while sleeping */
    struct timespec left = {milliseconds / 1000, (milliseconds % 1000) * 1000000L};
    while (nanosleep(&left, &left) != 0) {
    }
    return NVML_ERROR_TIMEOUT_CODE;
}

SIM_API nvmlReturn_t nvmlEventSetWait(event_set set, void *data, unsigned int milliseconds) {
    (void)data;
    return wait_for_event(__func__, set, milliseconds);
}
SIM_API nvmlReturn_t nvmlEventSetWait_v2(event_set set, void *data, unsigned int milliseconds) {
    (void)data;
    return wait_for_event(__func__, set, milliseconds);
}

SIM_API nvmlReturn_t nvmlEventSetFree(event_set set) {
    SIM_BEGIN();
    SIM_REQUIRE(valid(set), NVML_ERROR_INVALID_ARGUMENT);
    atomic_store(&sets[((char *)set - (char *)sets) / (ptrdiff_t)sizeof *sets].used, false);
    SIM_END(NVML_SUCCESS);
}
