/* SPDX-License-Identifier: Apache-2.0
 *
 * ECC, retired pages, row remapping and the time spent throttled.
 *
 * Counters: ecc.<volatile|aggregate>.<corrected|uncorrected>.<location>. Totals are sums, so an injected error shows
 * in all the functions that report it.
 */
#include <string.h>
#include <time.h>

#include "sim.h"

static const char *const error_types[] = {"corrected", "uncorrected"};
static const char *const counter_types[] = {"volatile", "aggregate"};
static const char *const locations[] = {"l1", "l2", "dram", "register", "texture", "texture_shm", "cbu", "sram"};

/* SRAM errors are the sum of their kinds unless the scenario says a number */
static nvmlReturn_t counter(const sim_call *call, unsigned int error, unsigned int type, const char *location,
                            nvml_ull *out) {
    const char *prefix = counter_types[type], *kind = error_types[error];
    if (strcmp(location, "sram") == 0 && error == 1 && !sim_raw(call, "ecc.%s.%s.sram", prefix, kind)) {
        nvml_ull parity = 0, secded = 0;
        nvmlReturn_t result = sim_ull(call, &parity, "ecc.%s.%s.sram_parity", prefix, kind);
        result = sim_first(result, sim_ull(call, &secded, "ecc.%s.%s.sram_secded", prefix, kind));
        *out = parity + secded;
        return result;
    }
    return sim_ull(call, out, "ecc.%s.%s.%s", prefix, kind, location);
}

static bool ecc_on(const sim_call *call) { return sim_or(call, 0, "ecc.current") != 0; }

static nvmlReturn_t total(const sim_call *call, unsigned int error, unsigned int type, nvml_ull *out) {
    bool any = false;
    *out = 0;
    if (!ecc_on(call)) return NVML_ERROR_NOT_SUPPORTED;
    for (size_t i = 0; i < sizeof locations / sizeof *locations; i++) {
        nvml_ull value;
        if (counter(call, error, type, locations[i], &value) != NVML_SUCCESS) continue;
        *out += value;
        any = true;
    }
    return any ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

SIM_API nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, unsigned int *now, unsigned int *pending) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(now && pending, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(sim_first(sim_uint(&call, now, "ecc.current"), sim_uint(&call, pending, "ecc.pending")));
}

SIM_API nvmlReturn_t nvmlDeviceGetDefaultEccMode(nvmlDevice_t device, unsigned int *mode) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(mode, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(sim_uint(&call, mode, "ecc.default"));
}

SIM_API nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned int error, unsigned int type,
                                                 nvml_ull *count) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(count && error < 2 && type < 2, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(total(&call, error, type, count));
}

SIM_API nvmlReturn_t nvmlDeviceGetDetailedEccErrors(nvmlDevice_t device, unsigned int error, unsigned int type,
                                                    nvmlEccErrorCounts_t *counts) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(counts && error < 2 && type < 2, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(ecc_on(&call), NVML_ERROR_NOT_SUPPORTED);
    memset(counts, 0, sizeof *counts);
    (void)counter(&call, error, type, "l1", &counts->l1Cache);
    (void)counter(&call, error, type, "l2", &counts->l2Cache);
    (void)counter(&call, error, type, "register", &counts->registerFile);
    SIM_END(counter(&call, error, type, "dram", &counts->deviceMemory));
}

SIM_API nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, unsigned int error, unsigned int type,
                                                     unsigned int location, nvml_ull *count) {
    SIM_BEGIN_ANY(device);
    SIM_REQUIRE(count && error < 2 && type < 2 && location < sizeof locations / sizeof *locations,
                NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(ecc_on(&call), NVML_ERROR_NOT_SUPPORTED);
    SIM_END(counter(&call, error, type, locations[location], count));
}

SIM_API nvmlReturn_t nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t device, nvmlEccSramErrorStatus_v1_t *s) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(s, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(s->version == NVML_STRUCT_VERSION(nvmlEccSramErrorStatus_v1_t, 1),
                NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    SIM_REQUIRE(ecc_on(&call), NVML_ERROR_NOT_SUPPORTED);
    const struct {
        nvml_ull *field;
        const char *key;
    } fields[] = {
        {&s->aggregateUncParity, "aggregate.uncorrected.sram_parity"},
        {&s->aggregateUncSecDed, "aggregate.uncorrected.sram_secded"},
        {&s->aggregateCor, "aggregate.corrected.sram"},
        {&s->volatileUncParity, "volatile.uncorrected.sram_parity"},
        {&s->volatileUncSecDed, "volatile.uncorrected.sram_secded"},
        {&s->volatileCor, "volatile.corrected.sram"},
        {&s->aggregateUncBucketL2, "aggregate.sram_source.l2"},
        {&s->aggregateUncBucketSm, "aggregate.sram_source.sm"},
        {&s->aggregateUncBucketPcie, "aggregate.sram_source.pcie"},
        {&s->aggregateUncBucketMcu, "aggregate.sram_source.mcu"},
        {&s->aggregateUncBucketOther, "aggregate.sram_source.other"},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields && result == NVML_SUCCESS; i++)
        result = sim_ull(&call, fields[i].field, "ecc.%s", fields[i].key);
    s->bThresholdExceeded = (unsigned int)sim_or(&call, 0, "ecc.sram_threshold_exceeded");
    SIM_END(result);
}

/* ---- retired pages: a count per cause; addresses are made up from it ---- */

static nvmlReturn_t retired_pages(const sim_call *call, unsigned int cause, unsigned int *count, nvml_ull *addresses,
                                  nvml_ull *times) {
    unsigned int pages = 0;
    nvmlReturn_t result = sim_uint(call, &pages, cause == 0 ? "retired.single_bit" : "retired.double_bit");
    if (result == NVML_SUCCESS) result = sim_list_room(count, pages, addresses);
    for (unsigned int i = 0; result == NVML_SUCCESS && i < pages; i++) {
        addresses[i] = 0x10000ull * (i + 1) + cause * 0x1000000ull;
        if (times) times[i] = 1700000000u + i;
    }
    return result;
}

SIM_API nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t device, unsigned int cause, unsigned int *count,
                                               nvml_ull *addresses) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(count && cause < 2, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(retired_pages(&call, cause, count, addresses, NULL));
}

SIM_API nvmlReturn_t nvmlDeviceGetRetiredPages_v2(nvmlDevice_t device, unsigned int cause, unsigned int *count,
                                                  nvml_ull *addresses, nvml_ull *times) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(count && cause < 2, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(retired_pages(&call, cause, count, addresses, times));
}

SIM_API nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t device, unsigned int *pending) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(pending, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(sim_uint(&call, pending, "retired.pending"));
}

/* ---- row remapping ---- */

SIM_API nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *corrected, unsigned int *uncorrected,
                                               unsigned int *pending, unsigned int *failure) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(corrected && uncorrected && pending && failure, NVML_ERROR_INVALID_ARGUMENT);
    result = sim_first(sim_uint(&call, corrected, "remap.corrected"), sim_uint(&call, uncorrected, "remap.uncorrected"));
    result = sim_first(result, sim_uint(&call, pending, "remap.pending"));
    SIM_END(sim_first(result, sim_uint(&call, failure, "remap.failure")));
}

SIM_API nvmlReturn_t nvmlDeviceGetRemappedRows_v2(nvmlDevice_t device, nvmlRemappedRowsInfo_v2_t *info) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    memset(info, 0, sizeof *info);
    result = sim_first(sim_uint(&call, &info->corrActiveRemaps, "remap.corrected"),
                       sim_uint(&call, &info->uncActiveRemaps, "remap.uncorrected"));
    result = sim_first(result, sim_uint(&call, &info->bPending, "remap.pending"));
    SIM_END(sim_first(result, sim_uint(&call, &info->bfailureOccurred, "remap.failure")));
}

SIM_API nvmlReturn_t nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t device, nvmlRowRemapperHistogramValues_t *h) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(h, NVML_ERROR_INVALID_ARGUMENT);
    result = sim_first(sim_uint(&call, &h->max, "remap.histogram.max"), sim_uint(&call, &h->high, "remap.histogram.high"));
    result = sim_first(result, sim_uint(&call, &h->partial, "remap.histogram.partial"));
    result = sim_first(result, sim_uint(&call, &h->low, "remap.histogram.low"));
    SIM_END(sim_first(result, sim_uint(&call, &h->none, "remap.histogram.none")));
}

/* ---- time spent below the wanted clocks, in ns ---- */

SIM_API nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t device, unsigned int policy, nvmlViolationTime_t *out) {
    static const char *const names[] = {"power",           "thermal",     "sync_boost", "board_limit",
                                        "low_utilization", "reliability", NULL,         NULL,
                                        NULL,              NULL,          "app_clocks", "base_clocks"};
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(out && policy < sizeof names / sizeof *names && names[policy], NVML_ERROR_INVALID_ARGUMENT);
    result = sim_ull(&call, &out->violationTime, "violation.%s", names[policy]);
    out->referenceTime = (nvml_ull)time(NULL) * 1000000;
    SIM_END(result);
}
