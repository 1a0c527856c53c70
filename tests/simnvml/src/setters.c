/* SPDX-License-Identifier: Apache-2.0
 *
 * Setters: they check as the driver does and append to an overlay, so every process and user sees the new value.
 * Settings that real hardware keeps in its InfoROM (ECC mode) go to the persistent overlay.
 */
#include <stdio.h>
#include <string.h>

#include "sim.h"

/* a setter of a value that must exist already */
static nvmlReturn_t set_known(const sim_call *call, const char *key, nvml_ull value) {
    nvml_ull before;
    nvmlReturn_t result = sim_ull(call, &before, "%s", key);
    return result == NVML_SUCCESS ? sim_set(call, SIM_VOLATILE, key, value) : result;
}

SIM_API nvmlReturn_t nvmlDeviceSetPersistenceMode(nvmlDevice_t device, unsigned int mode) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(mode <= 1, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(set_known(&call, "persistence", mode));
}

SIM_API nvmlReturn_t nvmlDeviceSetComputeMode(nvmlDevice_t device, unsigned int mode) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(mode == 0 || mode == 2 || mode == 3, mode == 1 ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(set_known(&call, "compute_mode", mode));
}

SIM_API nvmlReturn_t nvmlDeviceSetEccMode(nvmlDevice_t device, unsigned int mode) {
    SIM_BEGIN_DEVICE(device);
    unsigned int pending;
    SIM_REQUIRE(mode <= 1, NVML_ERROR_INVALID_ARGUMENT);
    result = sim_uint(&call, &pending, "ecc.pending");
    SIM_END(result == NVML_SUCCESS ? sim_set(&call, SIM_PERSISTENT, "ecc.pending", mode) : result);
}

SIM_API nvmlReturn_t nvmlDeviceClearEccErrorCounts(nvmlDevice_t device, unsigned int type) {
    static const char *const locations[] = {"l1",  "l2",   "dram",        "register",   "texture",
                                            "cbu", "sram", "sram_parity", "sram_secded"};
    static const char *const kinds[] = {"corrected", "uncorrected"};
    SIM_BEGIN_DEVICE(device);
    char lines[4096] = "";
    size_t used = 0;
    SIM_REQUIRE(type < 2, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(sim_or(&call, 0, "ecc.current"), NVML_ERROR_NOT_SUPPORTED);
    const char *prefix = type == 0 ? "volatile" : "aggregate";
    for (size_t i = 0; i < 2 * sizeof locations / sizeof *locations; i++) {
        const char *kind = kinds[i % 2], *location = locations[i / 2];
        if (!sim_raw(&call, "ecc.%s.%s.%s", prefix, kind, location)) continue;
        used += (size_t)snprintf(lines + used, sizeof lines - used, "gpu.%u.ecc.%s.%s.%s = 0\n", call.gpu, prefix,
                                 kind, location);
    }
    SIM_END(sim_state_write(type == 0 ? SIM_VOLATILE : SIM_PERSISTENT, lines));
}

static nvmlReturn_t set_power_limit(const sim_call *call, unsigned int limit) {
    unsigned int low, high;
    nvmlReturn_t result = sim_first(sim_uint(call, &low, "power.min"), sim_uint(call, &high, "power.max"));
    if (result != NVML_SUCCESS) return result;
    if (limit < low || limit > high) return NVML_ERROR_INVALID_ARGUMENT;
    return sim_set(call, SIM_VOLATILE, "power.limit", limit);
}

SIM_API nvmlReturn_t nvmlDeviceSetPowerManagementLimit(nvmlDevice_t device, unsigned int limit) {
    SIM_BEGIN_DEVICE(device);
    SIM_END(set_power_limit(&call, limit));
}

SIM_API nvmlReturn_t nvmlDeviceSetPowerManagementLimit_v2(nvmlDevice_t device, nvmlPowerValue_v2_t *value) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(value, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(value->version == NVML_STRUCT_VERSION(nvmlPowerValue_v2_t, 2), NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    /* nvidia-smi fills one byte of the scope and leaves the other three as they were */
    SIM_REQUIRE((value->powerScope & 0xff) == 0, NVML_ERROR_NOT_SUPPORTED);
    SIM_END(set_power_limit(&call, value->powerValueMw));
}

/* ---- clocks ---- */

static nvmlReturn_t write_pair(const sim_call *call, const char *a, const char *value_a, const char *b,
                               const char *value_b) {
    char lines[SIM_KEY * 4];
    snprintf(lines, sizeof lines, "gpu.%u.%s = %s\ngpu.%u.%s = %s\n", call->gpu, a, value_a, call->gpu, b, value_b);
    return sim_state_write(SIM_VOLATILE, lines);
}

static nvmlReturn_t lock_clocks(const sim_call *call, const char *domain, const char *supported, unsigned int low,
                                unsigned int high) {
    char keys[2][SIM_KEY], values[2][16];
    if (!sim_raw(call, "%s", supported)) return NVML_ERROR_NOT_SUPPORTED;
    if (low > high) return NVML_ERROR_INVALID_ARGUMENT;
    snprintf(keys[0], SIM_KEY, "clock.locked.%s.min", domain);
    snprintf(keys[1], SIM_KEY, "clock.locked.%s.max", domain);
    snprintf(values[0], sizeof values[0], "%u", low);
    snprintf(values[1], sizeof values[1], "%u", high);
    return write_pair(call, keys[0], values[0], keys[1], values[1]);
}

SIM_API nvmlReturn_t nvmlDeviceSetGpuLockedClocks(nvmlDevice_t device, unsigned int low, unsigned int high) {
    SIM_BEGIN_DEVICE(device);
    SIM_END(lock_clocks(&call, "gpu", "clock.supported.graphics", low, high));
}
SIM_API nvmlReturn_t nvmlDeviceSetMemoryLockedClocks(nvmlDevice_t device, unsigned int low, unsigned int high) {
    SIM_BEGIN_DEVICE(device);
    SIM_END(lock_clocks(&call, "memory", "clock.supported.mem", low, high));
}
SIM_API nvmlReturn_t nvmlDeviceResetGpuLockedClocks(nvmlDevice_t device) {
    SIM_BEGIN_DEVICE(device);
    SIM_END(write_pair(&call, "clock.locked.gpu.min", "-", "clock.locked.gpu.max", "-"));
}
SIM_API nvmlReturn_t nvmlDeviceResetMemoryLockedClocks(nvmlDevice_t device) {
    SIM_BEGIN_DEVICE(device);
    SIM_END(write_pair(&call, "clock.locked.memory.min", "-", "clock.locked.memory.max", "-"));
}

static nvmlReturn_t app_clocks(const sim_call *call, unsigned int memory, unsigned int graphics) {
    char text[2][16];
    unsigned int max_memory, max_graphics;
    nvmlReturn_t result = sim_uint(call, &max_memory, "clock.max.mem");
    result = sim_first(result, sim_uint(call, &max_graphics, "clock.max.graphics"));
    if (result == NVML_SUCCESS && !sim_raw(call, "clock.app.graphics")) result = NVML_ERROR_NOT_SUPPORTED;
    if (result != NVML_SUCCESS) return result;
    if (memory > max_memory || graphics > max_graphics || !memory || !graphics) return NVML_ERROR_INVALID_ARGUMENT;
    snprintf(text[0], sizeof text[0], "%u", memory);
    snprintf(text[1], sizeof text[1], "%u", graphics);
    return write_pair(call, "clock.app.mem", text[0], "clock.app.graphics", text[1]);
}

SIM_API nvmlReturn_t nvmlDeviceSetApplicationsClocks(nvmlDevice_t device, unsigned int memory, unsigned int graphics) {
    SIM_BEGIN_DEVICE(device);
    SIM_END(app_clocks(&call, memory, graphics));
}

SIM_API nvmlReturn_t nvmlDeviceResetApplicationsClocks(nvmlDevice_t device) {
    SIM_BEGIN_DEVICE(device);
    SIM_END(app_clocks(&call, (unsigned int)sim_or(&call, 0, "clock.app_default.mem"),
                       (unsigned int)sim_or(&call, 0, "clock.app_default.graphics")));
}

SIM_API nvmlReturn_t nvmlDeviceSetAccountingMode(nvmlDevice_t device, unsigned int mode) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(mode <= 1, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(set_known(&call, "accounting.mode", mode));
}

SIM_API nvmlReturn_t nvmlDeviceClearAccountingPids(nvmlDevice_t device) {
    SIM_BEGIN_DEVICE(device);
    SIM_END(sim_is_root() ? NVML_SUCCESS : NVML_ERROR_NO_PERMISSION);
}

SIM_API nvmlReturn_t nvmlDeviceSetAPIRestriction(nvmlDevice_t device, unsigned int api, unsigned int restricted) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(api < 2 && restricted <= 1, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(set_known(&call, api == 0 ? "restricted.0" : "restricted.1", restricted));
}

SIM_API nvmlReturn_t nvmlDeviceSetFanSpeed_v2(nvmlDevice_t device, unsigned int fan, unsigned int speed) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(fan < sim_or(&call, 0, "fan.count") && speed <= 100, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(set_known(&call, "fan.speed", speed));
}

SIM_API nvmlReturn_t nvmlDeviceResetNvLinkErrorCounters(nvmlDevice_t device, unsigned int link) {
    static const char *const names[] = {"replay", "recovery", "crc_flit", "crc_data", "ecc_data"};
    SIM_BEGIN_DEVICE(device);
    char lines[1024];
    size_t used = 0;
    SIM_REQUIRE(link < sim_or(&call, 0, "nvlink.links"), NVML_ERROR_INVALID_ARGUMENT);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        used += (size_t)snprintf(lines + used, sizeof lines - used, "gpu.%u.nvlink.%u.error.%s = 0\n", call.gpu, link,
                                 names[i]);
    SIM_END(sim_state_write(SIM_VOLATILE, lines));
}

SIM_API nvmlReturn_t nvmlDeviceSetCpuAffinity(nvmlDevice_t device) {
    SIM_BEGIN_DEVICE(device);
    SIM_END(sim_raw(&call, "cpu_affinity") ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED);
}
SIM_API nvmlReturn_t nvmlDeviceClearCpuAffinity(nvmlDevice_t device) {
    SIM_BEGIN_DEVICE(device);
    SIM_END(sim_raw(&call, "cpu_affinity") ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED);
}
