/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory, PCI identity, clock lists and affinity masks.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

typedef struct {
    nvml_ull total, reserved, used, free;
} memory;

static nvmlReturn_t read_memory(const sim_call *call, memory *out) {
    nvmlReturn_t result;
    if (call->handle->kind == SIM_MIG) {
        out->reserved = 0;
        result = sim_mig_memory(call, &out->total);
    } else {
        out->reserved = sim_or(call, 0, "memory.reserved");
        result = sim_ull(call, &out->total, "memory.total");
    }
    if (result != NVML_SUCCESS) return result;
    out->used = sim_or(call, 0, "memory.used") + sim_process_memory(call);
    if (out->used > out->total - out->reserved) out->used = out->total - out->reserved;
    out->free = out->total - out->reserved - out->used;
    return NVML_SUCCESS;
}

/* version 1 counts the reserved memory as used; version 2 names it */
SIM_API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *info) {
    SIM_BEGIN_ANY(device);
    memory found;
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    result = read_memory(&call, &found);
    if (result == NVML_SUCCESS) *info = (nvmlMemory_t){found.total, found.free, found.used + found.reserved};
    SIM_END(result);
}

SIM_API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *info) {
    SIM_BEGIN_ANY(device);
    memory found;
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(info->version == NVML_STRUCT_VERSION(nvmlMemory_v2_t, 2), NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    result = read_memory(&call, &found);
    if (result == NVML_SUCCESS)
        *info = (nvmlMemory_v2_t){info->version, found.total, found.reserved, found.free, found.used};
    SIM_END(result);
}

SIM_API nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *info) {
    SIM_BEGIN_ANY(device);
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    result = sim_first(sim_ull(&call, &info->bar1Total, "bar1.total"), sim_ull(&call, &info->bar1Used, "bar1.used"));
    info->bar1Free = info->bar1Total - info->bar1Used;
    SIM_END(result);
}

SIM_API nvmlReturn_t nvmlDeviceGetConfComputeProtectedMemoryUsage(nvmlDevice_t device, nvmlMemory_t *info) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    result = sim_first(sim_ull(&call, &info->total, "cc_memory.total"), sim_ull(&call, &info->used, "cc_memory.used"));
    info->free = info->total - info->used;
    SIM_END(result);
}

SIM_API nvmlReturn_t nvmlDeviceGetConfComputeMemSizeInfo(nvmlDevice_t device, nvmlConfComputeMemSizeInfo_t *info) {
    SIM_BEGIN_DEVICE(device);
    nvml_ull total = 0, secured = 0;
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    result = sim_first(sim_ull(&call, &total, "memory.total"), sim_ull(&call, &secured, "cc_memory.total"));
    *info = (nvmlConfComputeMemSizeInfo_t){secured / 1024, (total - secured) / 1024};
    SIM_END(result);
}

SIM_API nvmlReturn_t nvmlSystemGetConfComputeState(nvmlConfComputeSystemState_t *state) {
    SIM_BEGIN();
    SIM_REQUIRE(state, NVML_ERROR_INVALID_ARGUMENT);
    *state = (nvmlConfComputeSystemState_t){0, 0, 0}; /* confidential computing is off on every simulated node */
    SIM_END(NVML_SUCCESS);
}

/* ---- PCI ---- */

typedef struct {
    unsigned int domain, bus, device, id, subsystem, class;
} address;

static nvmlReturn_t read_address(const sim_call *call, address *out) {
    nvmlReturn_t result = sim_uint(call, &out->domain, "pci.domain");
    result = sim_first(result, sim_uint(call, &out->bus, "pci.bus"));
    result = sim_first(result, sim_uint(call, &out->device, "pci.device"));
    result = sim_first(result, sim_uint(call, &out->id, "pci.id"));
    out->subsystem = (unsigned int)sim_or(call, 0, "pci.subsystem"); /* 0 where no public source names it */
    return sim_first(result, sim_uint(call, &out->class, "pci.class"));
}

static nvmlReturn_t pci_info(const char *function, nvmlDevice_t device, nvmlPciInfo_t *info) {
    sim_call call;
    nvmlReturn_t result = sim_enter_handle(&call, function, device, SIM_KIND(SIM_DEVICE));
    address a = {0};
    if (result != NVML_SUCCESS) return result;
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    result = read_address(&call, &a);
    if (result == NVML_SUCCESS) {
        memset(info, 0, sizeof *info);
        snprintf(info->busIdLegacy, sizeof info->busIdLegacy, "%04X:%02X:%02X.0", a.domain & 0xffff, a.bus & 0xff,
                 a.device & 0x1f);
        snprintf(info->busId, sizeof info->busId, "%08X:%02X:%02X.0", a.domain, a.bus, a.device);
        info->domain = a.domain;
        info->bus = a.bus;
        info->device = a.device;
        info->pciDeviceId = a.id;
        info->pciSubSystemId = a.subsystem;
    }
    SIM_END(result);
}

SIM_API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *info) {
    return pci_info(__func__, device, info);
}

static nvmlReturn_t pci_info_old(const char *function, nvmlDevice_t device, nvmlPciInfo_v2_t *info) {
    nvmlPciInfo_t found;
    if (!info) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = pci_info(function, device, &found);
    if (result == NVML_SUCCESS) {
        memset(info, 0, sizeof *info);
        memcpy(info->busId, found.busIdLegacy, sizeof info->busId);
        info->domain = found.domain;
        info->bus = found.bus;
        info->device = found.device;
        info->pciDeviceId = found.pciDeviceId;
        info->pciSubSystemId = found.pciSubSystemId;
    }
    return result;
}

SIM_API nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t device, nvmlPciInfo_v2_t *info) {
    return pci_info_old(__func__, device, info);
}
SIM_API nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_v2_t *info) {
    return pci_info_old(__func__, device, info);
}

SIM_API nvmlReturn_t nvmlDeviceGetPciInfoExt(nvmlDevice_t device, nvmlPciInfoExt_v1_t *info) {
    SIM_BEGIN_DEVICE(device);
    address a = {0};
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(info->version == NVML_STRUCT_VERSION(nvmlPciInfoExt_v1_t, 1), NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    result = read_address(&call, &a);
    if (result == NVML_SUCCESS) {
        *info = (nvmlPciInfoExt_v1_t){info->version, a.domain,    a.bus,        a.device,
                                      a.id,          a.subsystem, a.class >> 8, a.class & 0xff, ""};
        snprintf(info->busId, sizeof info->busId, "%08X:%02X:%02X.0", a.domain, a.bus, a.device);
    }
    SIM_END(result);
}

SIM_API nvmlReturn_t nvmlDeviceGetPcieSpeed(nvmlDevice_t device, unsigned int *speed) {
    static const unsigned int megatransfers[] = {0, 2500, 5000, 8000, 16000, 32000, 64000};
    SIM_BEGIN_DEVICE(device);
    unsigned int generation = 0;
    SIM_REQUIRE(speed, NVML_ERROR_INVALID_ARGUMENT);
    result = sim_uint(&call, &generation, "pcie.gen");
    SIM_REQUIRE(generation < sizeof megatransfers / sizeof *megatransfers, NVML_ERROR_UNKNOWN);
    *speed = megatransfers[generation];
    SIM_END(result);
}

/* ---- lists of supported clocks: "2619" or "1980-345:15" (from, to, step) or several of them with commas ---- */

static unsigned int expand(const char *text, unsigned int *out, unsigned int room) {
    unsigned int count = 0;
    while (text && *text) {
        unsigned int from = 0, to, step = 1;
        int used = 0;
        if (sscanf(text, "%u%n", &from, &used) != 1) break;
        text += used;
        to = from;
        if (sscanf(text, "-%u:%u%n", &to, &step, &used) == 2) text += used;
        for (unsigned int value = from; value >= to && value <= from; value -= step ? step : 1) {
            if (out && count < room) out[count] = value;
            count++;
        }
        if (*text == ',') text++;
    }
    return count;
}

static nvmlReturn_t clock_list(const sim_call *call, const char *key, unsigned int *count, unsigned int *out) {
    char text[SIM_VALUE];
    nvmlReturn_t result = sim_text(call, text, sizeof text, "%s", key);
    if (result != NVML_SUCCESS) return result;
    unsigned int room = *count;
    result = sim_list_room(count, expand(text, NULL, 0), out);
    if (result == NVML_SUCCESS) expand(text, out, room);
    return result;
}

SIM_API nvmlReturn_t nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t device, unsigned int *count, unsigned int *out) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(count, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(clock_list(&call, "clock.supported.mem", count, out));
}

SIM_API nvmlReturn_t nvmlDeviceGetSupportedGraphicsClocks(nvmlDevice_t device, unsigned int memory_clock,
                                                          unsigned int *count, unsigned int *out) {
    SIM_BEGIN_DEVICE(device);
    unsigned int known[64], n;
    char text[SIM_VALUE];
    SIM_REQUIRE(count, NVML_ERROR_INVALID_ARGUMENT);
    result = sim_text(&call, text, sizeof text, "clock.supported.mem");
    SIM_REQUIRE(result == NVML_SUCCESS, result);
    n = expand(text, known, 64);
    for (unsigned int i = 0; i < n && i < 64; i++) {
        if (known[i] == memory_clock) SIM_END(clock_list(&call, "clock.supported.graphics", count, out));
    }
    SIM_END(NVML_ERROR_NOT_FOUND);
}

SIM_API nvmlReturn_t nvmlDeviceGetSupportedPerformanceStates(nvmlDevice_t device, unsigned int *out,
                                                             unsigned int bytes) {
    SIM_BEGIN_DEVICE(device);
    char text[SIM_VALUE];
    SIM_REQUIRE(out, NVML_ERROR_INVALID_ARGUMENT);
    result = sim_text(&call, text, sizeof text, "pstates");
    SIM_REQUIRE(result == NVML_SUCCESS, result);
    unsigned int room = bytes / (unsigned int)sizeof *out, count = expand(text, out, room);
    for (unsigned int i = count; i < room; i++) out[i] = 32; /* NVML_PSTATE_UNKNOWN */
    SIM_END(count > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS);
}

/* ---- affinity: "0-55,112-167" -> words of 64 bits ---- */

static void mask(const char *text, unsigned long *words, unsigned int count) {
    memset(words, 0, count * sizeof *words);
    while (*text) {
        unsigned int from, to;
        int used = 0;
        if (sscanf(text, "%u%n", &from, &used) != 1) return;
        text += used;
        to = from;
        if (sscanf(text, "-%u%n", &to, &used) == 1) text += used;
        for (unsigned int bit = from; bit <= to && bit / 64 < count; bit++) words[bit / 64] |= 1ul << (bit % 64);
        if (*text == ',') text++;
    }
}

static nvmlReturn_t affinity(const char *function, nvmlDevice_t device, unsigned int count, unsigned long *words,
                             const char *key) {
    sim_call call;
    nvmlReturn_t result = sim_enter_handle(&call, function, device, SIM_KIND(SIM_DEVICE));
    char text[SIM_VALUE];
    if (result != NVML_SUCCESS) return result;
    SIM_REQUIRE(words && count, NVML_ERROR_INVALID_ARGUMENT);
    result = sim_text(&call, text, sizeof text, "%s", key);
    if (result == NVML_SUCCESS) mask(text, words, count);
    SIM_END(result);
}

SIM_API nvmlReturn_t nvmlDeviceGetCpuAffinity(nvmlDevice_t device, unsigned int count, unsigned long *words) {
    return affinity(__func__, device, count, words, "cpu_affinity");
}
SIM_API nvmlReturn_t nvmlDeviceGetCpuAffinityWithinScope(nvmlDevice_t device, unsigned int count, unsigned long *words,
                                                         unsigned int scope) {
    (void)scope;
    return affinity(__func__, device, count, words, "cpu_affinity");
}
SIM_API nvmlReturn_t nvmlDeviceGetMemoryAffinity(nvmlDevice_t device, unsigned int count, unsigned long *words,
                                                 unsigned int scope) {
    (void)scope;
    return affinity(__func__, device, count, words, "numa_node");
}

SIM_API nvmlReturn_t nvmlDeviceGetNumaNodeId(nvmlDevice_t device, unsigned int *node) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(node, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(sim_uint(&call, node, "gpu_numa_node")); /* the node of coherent GPU memory, not the nearest CPU's */
}
