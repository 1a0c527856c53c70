/* SPDX-License-Identifier: Apache-2.0
 *
 * Initialisation, versions, and finding devices.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static atomic_uint init_count;

static nvmlReturn_t initialise(const char *function) {
    sim_call call;
    nvmlReturn_t result = sim_enter_before_init(&call, function);
    if (result != NVML_SUCCESS) return result;
    result = sim_present(call.conf) ? sim_driver_state(call.conf) : NVML_ERROR_DRIVER_NOT_LOADED;
    if (result == NVML_SUCCESS) {
        atomic_fetch_add(&init_count, 1);
        sim_set_initialised(true);
    }
    return sim_leave(&call, result);
}

SIM_API nvmlReturn_t nvmlInit(void) { return initialise(__func__); }
SIM_API nvmlReturn_t nvmlInit_v2(void) { return initialise(__func__); }
SIM_API nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    return initialise(__func__);
}

SIM_API nvmlReturn_t nvmlShutdown(void) {
    sim_trace(__func__, -1);
    unsigned int open = atomic_load(&init_count);
    do {
        if (open == 0) return NVML_ERROR_UNINITIALIZED;
    } while (!atomic_compare_exchange_weak(&init_count, &open, open - 1));
    sim_set_initialised(open > 1);
    return NVML_SUCCESS;
}

static nvmlReturn_t copy(char *out, unsigned int size, const char *text) {
    if (!out) return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(text) >= size) return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(out, text);
    return NVML_SUCCESS;
}

static nvmlReturn_t system_text(const sim_call *call, const char *key, char *out, unsigned int size) {
    char text[SIM_VALUE];
    if (!sim_system_text(call->conf, key, text, sizeof text)) return NVML_ERROR_NOT_SUPPORTED;
    return copy(out, size, text);
}

SIM_API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    SIM_BEGIN();
    SIM_END(system_text(&call, "driver_version", version, length));
}

/* works before nvmlInit, as in the real library: nvidia-smi prints it with a version mismatch */
SIM_API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length) {
    sim_call call;
    nvmlReturn_t result = sim_enter_before_init(&call, __func__);
    if (result != NVML_SUCCESS) return result;
    SIM_END(system_text(&call, "nvml_version", version, length));
}

static nvmlReturn_t cuda_version(const char *function, int *version) {
    sim_call call;
    nvmlReturn_t result = sim_enter_before_init(&call, function);
    char text[SIM_VALUE];
    if (result != NVML_SUCCESS) return result;
    SIM_REQUIRE(version, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(sim_system_text(call.conf, "cuda_version", text, sizeof text), NVML_ERROR_NOT_SUPPORTED);
    *version = atoi(text);
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) { return cuda_version(__func__, version); }
SIM_API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) { return cuda_version(__func__, version); }

SIM_API nvmlReturn_t nvmlSystemGetDriverBranch(nvmlSystemDriverBranchInfo_v1_t *info, unsigned int length) {
    SIM_BEGIN();
    char text[SIM_VALUE], branch[SIM_VALUE + 8];
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(info->version == NVML_STRUCT_VERSION(nvmlSystemDriverBranchInfo_v1_t, 1),
                NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    SIM_REQUIRE(sim_system_text(call.conf, "driver_version", text, sizeof text), NVML_ERROR_NOT_SUPPORTED);
    text[strcspn(text, ".")] = '\0';
    snprintf(branch, sizeof branch, "r%s_00", text);
    SIM_END(copy(info->branch, length < sizeof info->branch ? length : sizeof info->branch, branch));
}

SIM_API nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length) {
    SIM_BEGIN();
    char text[4096];
    SIM_REQUIRE(name && length > 0, NVML_ERROR_INVALID_ARGUMENT);
    sim_process_name(pid, text, sizeof text);
    SIM_REQUIRE(*text, NVML_ERROR_NOT_FOUND);
    snprintf(name, length, "%s", text);
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlSystemGetHicVersion(unsigned int *count, nvmlHwbcEntry_t *entries) {
    (void)entries;
    SIM_BEGIN();
    SIM_REQUIRE(count, NVML_ERROR_INVALID_ARGUMENT);
    *count = 0;
    SIM_END(NVML_SUCCESS);
}

static nvmlReturn_t none(const char *function, unsigned int *count) {
    sim_call call;
    nvmlReturn_t result = sim_enter(&call, function);
    if (result != NVML_SUCCESS) return result;
    SIM_REQUIRE(count, NVML_ERROR_INVALID_ARGUMENT);
    *count = 0;
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlUnitGetCount(unsigned int *count) { return none(__func__, count); }
SIM_API nvmlReturn_t nvmlGetExcludedDeviceCount(unsigned int *count) { return none(__func__, count); }
SIM_API nvmlReturn_t nvmlGetBlacklistDeviceCount(unsigned int *count) { return none(__func__, count); }

static nvmlReturn_t device_count(const char *function, unsigned int *count) {
    sim_call call;
    nvmlReturn_t result = sim_enter(&call, function);
    if (result != NVML_SUCCESS) return result;
    SIM_REQUIRE(count, NVML_ERROR_INVALID_ARGUMENT);
    *count = sim_gpu_count(call.conf);
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetCount(unsigned int *count) { return device_count(__func__, count); }
SIM_API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) { return device_count(__func__, count); }

static nvmlReturn_t handle_by_index(const char *function, unsigned int index, nvmlDevice_t *device) {
    sim_call call;
    nvmlReturn_t result = sim_enter(&call, function);
    if (result != NVML_SUCCESS) return result;
    SIM_REQUIRE(device && index < sim_gpu_count(call.conf), NVML_ERROR_INVALID_ARGUMENT);
    result = sim_gpu_failure(&call, index);
    if (result == NVML_SUCCESS) *device = sim_handle_device(index);
    SIM_END(result);
}

SIM_API nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device) {
    return handle_by_index(__func__, index, device);
}
SIM_API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    return handle_by_index(__func__, index, device);
}

typedef bool (*sim_matcher)(const sim_call *call, const char *wanted);

static bool by_uuid(const sim_call *call, const char *wanted) {
    char text[SIM_VALUE];
    return sim_text(call, text, sizeof text, "uuid") == NVML_SUCCESS && strcmp(text, wanted) == 0;
}

static bool by_serial(const sim_call *call, const char *wanted) {
    char text[SIM_VALUE];
    return sim_text(call, text, sizeof text, "serial") == NVML_SUCCESS && strcmp(text, wanted) == 0;
}

/* "0000:19:00.0", "00000000:19:00.0" and "19:00.0" are the same device */
static bool by_bus_id(const sim_call *call, const char *wanted) {
    unsigned int domain = 0, bus, device, function = 0;
    if (sscanf(wanted, "%x:%x:%x.%x", &domain, &bus, &device, &function) < 3) {
        domain = 0;
        if (sscanf(wanted, "%x:%x.%x", &bus, &device, &function) < 2) return false;
    }
    return sim_or(call, 0, "pci.domain") == domain && sim_or(call, 0, "pci.bus") == bus &&
           sim_or(call, 0, "pci.device") == device;
}

static nvmlReturn_t search(const char *function, sim_matcher matches, const char *wanted, nvmlDevice_t *device) {
    sim_call call;
    nvmlReturn_t result = sim_enter(&call, function);
    if (result != NVML_SUCCESS) return result;
    SIM_REQUIRE(wanted && device, NVML_ERROR_INVALID_ARGUMENT);
    for (call.gpu = 0; call.gpu < sim_gpu_count(call.conf); call.gpu++) {
        if (!matches(&call, wanted)) continue;
        result = sim_gpu_failure(&call, call.gpu);
        if (result == NVML_SUCCESS) *device = sim_handle_device(call.gpu);
        SIM_END(result);
    }
    SIM_END(NVML_ERROR_NOT_FOUND);
}

static nvmlReturn_t search_mig(const char *function, const char *wanted, nvmlDevice_t *device) {
    sim_call call;
    nvmlReturn_t result = sim_enter(&call, function);
    if (result != NVML_SUCCESS) return result;
    for (call.gpu = 0; call.gpu < sim_gpu_count(call.conf); call.gpu++) {
        for (unsigned int at = 0; at < SIM_MAX_GI * SIM_MAX_CI; at++) {
            char uuid[SIM_VALUE];
            const struct sim_handle *mig = sim_handle_mig(call.gpu, at / SIM_MAX_CI, at % SIM_MAX_CI);
            call.handle = mig;
            if (sim_mig_uuid(&call, uuid, sizeof uuid) != NVML_SUCCESS || strcmp(uuid, wanted) != 0) continue;
            *device = sim_handle_mig(call.gpu, mig->gi, mig->ci);
            SIM_END(NVML_SUCCESS);
        }
    }
    SIM_END(NVML_ERROR_NOT_FOUND);
}

SIM_API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    if (uuid && device && strncmp(uuid, "MIG-", 4) == 0) return search_mig(__func__, uuid, device);
    return search(__func__, by_uuid, uuid, device);
}

SIM_API nvmlReturn_t nvmlDeviceGetHandleByUUIDV(const nvmlUUID_t *uuid, nvmlDevice_t *device) {
    char text[sizeof uuid->value.str + 1];
    if (!uuid || !device) return NVML_ERROR_INVALID_ARGUMENT;
    if (uuid->version != NVML_STRUCT_VERSION(nvmlUUID_t, 1)) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (uuid->type != 1) return NVML_ERROR_NOT_SUPPORTED; /* ASCII form only */
    snprintf(text, sizeof text, "%.*s", (int)sizeof uuid->value.str, uuid->value.str);
    return search(__func__, by_uuid, text, device);
}

SIM_API nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *device) {
    return search(__func__, by_serial, serial, device);
}
SIM_API nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *bus_id, nvmlDevice_t *device) {
    return search(__func__, by_bus_id, bus_id, device);
}
SIM_API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device) {
    return search(__func__, by_bus_id, bus_id, device);
}
