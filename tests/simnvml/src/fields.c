/* SPDX-License-Identifier: Apache-2.0
 *
 * nvmlDeviceGetFieldValues: one table from field number to value.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <time.h>

#include "sim.h"

typedef struct {
    unsigned int id, type;
    const char *key;
} field;

/* the fields that carry a value of their own key; sorted by number is not needed, the table is short */
static const field fields[] = {
    {1, NVML_VALUE_UINT, "ecc.current"},
    {2, NVML_VALUE_UINT, "ecc.pending"},
    {29, NVML_VALUE_UINT, "retired.single_bit"},
    {30, NVML_VALUE_UINT, "retired.double_bit"},
    {31, NVML_VALUE_UINT, "retired.pending"},
    {74, NVML_VALUE_ULL, "violation.power"},
    {75, NVML_VALUE_ULL, "violation.thermal"},
    {76, NVML_VALUE_ULL, "violation.sync_boost"},
    {77, NVML_VALUE_ULL, "violation.board_limit"},
    {78, NVML_VALUE_ULL, "violation.low_utilization"},
    {79, NVML_VALUE_ULL, "violation.reliability"},
    {80, NVML_VALUE_ULL, "violation.app_clocks"},
    {81, NVML_VALUE_ULL, "violation.base_clocks"},
    {82, NVML_VALUE_UINT, "temp.memory"},
    {83, NVML_VALUE_ULL, "power.energy"},
    {90, NVML_VALUE_UINT, "nvlink.speed"},
    {91, NVML_VALUE_UINT, "nvlink.links"},
    {94, NVML_VALUE_UINT, "pcie.replay"},
    {95, NVML_VALUE_UINT, "pcie.replay_rollover"},
    {142, NVML_VALUE_UINT, "remap.corrected"},
    {143, NVML_VALUE_UINT, "remap.uncorrected"},
    {144, NVML_VALUE_UINT, "remap.pending"},
    {145, NVML_VALUE_UINT, "remap.failure"},
    {169, NVML_VALUE_UINT, "pcie.l0_to_recovery"},
    {170, NVML_VALUE_UINT, "c2c.links"},
    {173, NVML_VALUE_UINT, "pcie.error.correctable"},
    {174, NVML_VALUE_UINT, "pcie.error.naks_received"},
    {175, NVML_VALUE_UINT, "pcie.error.receiver"},
    {176, NVML_VALUE_UINT, "pcie.error.bad_tlp"},
    {177, NVML_VALUE_UINT, "pcie.error.naks_sent"},
    {178, NVML_VALUE_UINT, "pcie.error.bad_dllp"},
    {179, NVML_VALUE_UINT, "pcie.error.non_fatal"},
    {180, NVML_VALUE_UINT, "pcie.error.fatal"},
    {184, NVML_VALUE_UINT, "mig.resetless"},
    {185, NVML_VALUE_UINT, "power.average"},
    {186, NVML_VALUE_UINT, "power.draw"},
    {187, NVML_VALUE_UINT, "power.min"},
    {188, NVML_VALUE_UINT, "power.max"},
    {189, NVML_VALUE_UINT, "power.default"},
    {190, NVML_VALUE_UINT, "power.limit"},
    {191, NVML_VALUE_ULL, "power.energy"},
    {192, NVML_VALUE_UINT, "power.limit"},
    {193, NVML_VALUE_INT, "temp.tlimit.shutdown"},
    {194, NVML_VALUE_INT, "temp.tlimit.slowdown"},
    {195, NVML_VALUE_INT, "temp.tlimit.mem_max"},
    {196, NVML_VALUE_INT, "temp.tlimit.gpu_max"},
    {197, NVML_VALUE_ULL, "pcie.bytes.tx"},
    {198, NVML_VALUE_ULL, "pcie.bytes.rx"},
    {199, NVML_VALUE_UINT, "mig.independent_query"},
    {226, NVML_VALUE_UINT, "reset_required"},
    {227, NVML_VALUE_UINT, "drain_and_reset"},
    {230, NVML_VALUE_UINT, "recovery_action"},
    {269, NVML_VALUE_ULL, "violation.sw_thermal"},
    {270, NVML_VALUE_ULL, "violation.hw_thermal"},
    {271, NVML_VALUE_ULL, "violation.hw_power_brake"},
};

enum { SCOPE_GPU = 0, SCOPE_MODULE = 1, SCOPE_MEMORY = 2 };

/* power fields (185-192) have a scope: 0 the GPU, 1 the module (Grace boards), 2 the memory */
static nvmlReturn_t scoped_power(const sim_call *call, const nvmlFieldValue_t *v, nvml_ull *out) {
    if (v->scopeId == SCOPE_MEMORY && v->fieldId == 185) return sim_ull(call, out, "power.memory_average");
    return NVML_ERROR_NOT_SUPPORTED;
}

/* error counters of links 0-5 and 6-11 are two runs of numbers, a total stands between them */
static nvmlReturn_t link_counter(const sim_call *call, unsigned int id, nvml_ull *out) {
    static const struct {
        unsigned int low, high, total;
        const char *key;
    } runs[] = {{32, 96, 38, "crc_flit"}, {39, 102, 45, "crc_data"}, {46, 108, 52, "replay"}, {53, 114, 59, "recovery"}};
    unsigned int links = 0;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        unsigned int link = ~0u;
        if (id >= runs[i].low && id < runs[i].low + 6) link = id - runs[i].low;
        if (id >= runs[i].high && id < runs[i].high + 6) link = id - runs[i].high + 6;
        if (link == ~0u && id != runs[i].total) continue;
        nvmlReturn_t result = sim_uint(call, &links, "nvlink.links");
        if (result != NVML_SUCCESS || (link != ~0u && link >= links)) return NVML_ERROR_NOT_SUPPORTED;
        *out = 0;
        for (unsigned int l = link == ~0u ? 0 : link; l < (link == ~0u ? links : link + 1); l++)
            *out += sim_or(call, 0, "nvlink.%u.error.%s", l, runs[i].key);
        return NVML_SUCCESS;
    }
    return NVML_ERROR_NOT_FOUND; /* not such a field */
}

/* counters that NVLink 5 brought: NVML's number for it is 7 */
static bool fifth_generation(const sim_call *call) { return sim_or(call, 0, "nvlink.version") >= 7; }

static nvmlReturn_t link_error(const sim_call *call, unsigned int link, const char *name, nvml_ull *out) {
    *out = sim_or(call, 0, "nvlink.%u.error.%s", link, name);
    return NVML_SUCCESS;
}

/* fields of one link: its number is the scope */
static nvmlReturn_t link_field(const sim_call *call, const nvmlFieldValue_t *v, unsigned int id, unsigned int link,
                               nvml_ull *out) {
    unsigned int links = 0;
    nvmlReturn_t result = sim_uint(call, &links, "nvlink.links");
    if (result != NVML_SUCCESS) return result;
    if (link >= links) return NVML_ERROR_INVALID_ARGUMENT;
    switch (id) {
    case 161: return sim_ull(call, out, "nvlink.%u.error.replay", v->scopeId) == NVML_SUCCESS ? 0 : (*out = 0, 0);
    case 162: return sim_ull(call, out, "nvlink.%u.error.recovery", v->scopeId) == NVML_SUCCESS ? 0 : (*out = 0, 0);
    case 163: return sim_ull(call, out, "nvlink.%u.error.crc_flit", v->scopeId) == NVML_SUCCESS ? 0 : (*out = 0, 0);
    case 164: return sim_ull(call, out, "nvlink.speed");
    case 165: *out = sim_or(call, sim_or(call, 0, "nvlink.state"), "nvlink.%u.state", link); return NVML_SUCCESS;
    case 166: return sim_ull(call, out, "nvlink.version");
    case 214: return fifth_generation(call) ? link_error(call, link, "recovery_failed", out) : NVML_ERROR_NOT_SUPPORTED;
    case 220: return fifth_generation(call) ? link_error(call, link, "effective_ber", out) : NVML_ERROR_NOT_SUPPORTED;
    default: return NVML_ERROR_NOT_SUPPORTED;
    }
}

/* ECC totals and locations: 3-28 */
static nvmlReturn_t ecc_field(const sim_call *call, unsigned int id, nvml_ull *out) {
    static const struct {
        unsigned int id;
        const char *key;
    } ecc[] = {{9, "volatile.corrected.l2"},       {10, "volatile.uncorrected.l2"},   {11, "volatile.corrected.dram"},
               {12, "volatile.uncorrected.dram"},  {13, "volatile.corrected.register"},
               {14, "volatile.uncorrected.register"}, {20, "aggregate.corrected.l2"}, {21, "aggregate.uncorrected.l2"},
               {22, "aggregate.corrected.dram"},   {23, "aggregate.uncorrected.dram"}};
    static const char *const totals[] = {"volatile.corrected", "volatile.uncorrected", "aggregate.corrected",
                                         "aggregate.uncorrected"};
    static const char *const parts[] = {"l1", "l2", "dram", "register", "texture", "cbu", "sram", "sram_parity",
                                        "sram_secded"};
    if (!sim_or(call, 0, "ecc.current")) return NVML_ERROR_NOT_SUPPORTED;
    if (id >= 3 && id <= 6) {
        *out = 0;
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            *out += sim_or(call, 0, "ecc.%s.%s", totals[id - 3], parts[i]);
        return NVML_SUCCESS;
    }
    for (size_t i = 0; i < sizeof ecc / sizeof *ecc; i++) {
        if (ecc[i].id == id) return sim_ull(call, out, "ecc.%s", ecc[i].key);
    }
    return NVML_ERROR_NOT_SUPPORTED;
}

static nvmlReturn_t switch_links(const sim_call *call, nvml_ull *out) {
    unsigned int links = 0;
    nvmlReturn_t result = sim_uint(call, &links, "nvlink.links");
    *out = 0;
    for (unsigned int link = 0; result == NVML_SUCCESS && link < links; link++) {
        const char *remote = sim_raw(call, "nvlink.%u.remote", link);
        *out += remote && *remote == 's';
    }
    return result;
}

static nvmlReturn_t read_field(const sim_call *call, nvmlFieldValue_t *v, nvml_ull *out) {
    unsigned int id = v->fieldId;
    v->valueType = NVML_VALUE_ULL;
    if (id >= 185 && id <= 192 && v->scopeId != SCOPE_GPU) {
        v->valueType = NVML_VALUE_UINT;
        return scoped_power(call, v, out);
    }
    if (id >= 3 && id <= 28) return ecc_field(call, id, out);
    if ((id >= 84 && id <= 89) || (id >= 132 && id <= 137)) {
        v->valueType = NVML_VALUE_UINT;
        return link_field(call, v, 164, id >= 132 ? id - 126 : id - 84, out);
    }
    if (id == 214 || id == 220) return link_field(call, v, id, v->scopeId, out);
    if (id >= 161 && id <= 167) {
        v->valueType = id <= 163 ? NVML_VALUE_ULL : NVML_VALUE_UINT;
        return link_field(call, v, id, v->scopeId, out);
    }
    if (id == 147) {
        v->valueType = NVML_VALUE_UINT;
        return switch_links(call, out);
    }
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (fields[i].id != id) continue;
        v->valueType = fields[i].type;
        return sim_ull(call, out, "%s", fields[i].key);
    }
    nvmlReturn_t result = link_counter(call, id, out);
    return result == NVML_ERROR_NOT_FOUND ? NVML_ERROR_NOT_SUPPORTED : result;
}

SIM_API nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
    SIM_BEGIN_DEVICE(device);
    struct timespec now;
    SIM_REQUIRE(values && count > 0, NVML_ERROR_INVALID_ARGUMENT);
    clock_gettime(CLOCK_REALTIME, &now);
    for (int i = 0; i < count; i++) {
        nvml_ull value = 0;
        values[i].nvmlReturn = read_field(&call, &values[i], &value);
        values[i].timestamp = now.tv_sec * 1000000LL + now.tv_nsec / 1000;
        values[i].latencyUsec = 0;
        values[i].value.ullVal = 0;
        if (values[i].nvmlReturn != NVML_SUCCESS) continue;
        if (values[i].valueType == NVML_VALUE_ULL)
            values[i].value.ullVal = value;
        else if (values[i].valueType == NVML_VALUE_INT)
            values[i].value.siVal = (int)value;
        else
            values[i].value.uiVal = (unsigned int)value;
    }
    SIM_END(NVML_SUCCESS);
}
