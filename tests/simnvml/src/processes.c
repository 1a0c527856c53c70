/* SPDX-License-Identifier: Apache-2.0
 *
 * Processes: gpu.N.proc.K = "PID TYPE BYTES [GI CI]", TYPE being C (compute), G (graphics) or M (MPS).
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "sim.h"

static bool read_process(const sim_call *call, unsigned int index, sim_process *out) {
    const char *text = sim_raw(call, "proc.%u", index);
    *out = (sim_process){0, SIM_NO_INSTANCE, SIM_NO_INSTANCE, 'C', 0};
    if (!text || sscanf(text, "%u %c %llu %u %u", &out->pid, &out->type, &out->memory, &out->gi, &out->ci) < 3)
        return false;
    const struct sim_handle *handle = call->handle;
    return handle->kind != SIM_MIG || (handle->gi == out->gi && handle->ci == out->ci);
}

/* type 0: all */
unsigned int sim_processes(const sim_call *call, char type, sim_process *out, unsigned int room) {
    unsigned int count = 0;
    for (unsigned int i = 0; i < SIM_MAX_PROCESSES; i++) {
        sim_process found;
        if (!read_process(call, i, &found) || (type && found.type != type)) continue;
        if (count < room) out[count] = found;
        count++;
    }
    return count;
}

nvml_ull sim_process_memory(const sim_call *call) {
    sim_process found[SIM_MAX_PROCESSES];
    nvml_ull sum = 0;
    for (unsigned int i = sim_processes(call, 0, found, SIM_MAX_PROCESSES); i > 0; i--) sum += found[i - 1].memory;
    return sum;
}

void sim_process_name(unsigned int pid, char *out, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    FILE *file = fopen(path, "re");
    size_t length = file ? fread(out, 1, size - 1, file) : 0;
    if (file) fclose(file);
    out[length] = '\0'; /* the arguments end in NUL bytes: only the first remains */
}

static nvmlReturn_t list(const char *function, nvmlDevice_t device, char type, unsigned int *count,
                         nvmlProcessInfo_v2_t *infos, nvmlProcessInfo_v1_t *old_infos) {
    sim_call call;
    nvmlReturn_t result = sim_enter_handle(&call, function, device, SIM_KIND(SIM_DEVICE) | SIM_KIND(SIM_MIG));
    sim_process found[SIM_MAX_PROCESSES];
    if (result != NVML_SUCCESS) return result;
    SIM_REQUIRE(count, NVML_ERROR_INVALID_ARGUMENT);
    unsigned int n = sim_processes(&call, type, found, SIM_MAX_PROCESSES);
    result = sim_list_room(count, n, infos ? (void *)infos : (void *)old_infos);
    for (unsigned int i = 0; result == NVML_SUCCESS && i < n; i++) {
        if (infos)
            infos[i] = (nvmlProcessInfo_v2_t){found[i].pid, found[i].memory, found[i].gi, found[i].ci};
        else
            old_infos[i] = (nvmlProcessInfo_v1_t){found[i].pid, found[i].memory};
    }
    SIM_END(result);
}

#define LIST(name, type)                                                                                   \
    SIM_API nvmlReturn_t name(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v1_t *infos) {     \
        return list(__func__, device, type, count, NULL, infos);                                           \
    }                                                                                                      \
    SIM_API nvmlReturn_t name##_v2(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v2_t *infos) { \
        return list(__func__, device, type, count, infos, NULL);                                           \
    }                                                                                                      \
    SIM_API nvmlReturn_t name##_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v2_t *infos) { \
        return list(__func__, device, type, count, infos, NULL);                                           \
    }

LIST(nvmlDeviceGetComputeRunningProcesses, 'C')
LIST(nvmlDeviceGetGraphicsRunningProcesses, 'G')
LIST(nvmlDeviceGetMPSComputeRunningProcesses, 'M')

SIM_API nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_v1_t *info) {
    static const char types[] = {'C', 'G', 'M', 0};
    SIM_BEGIN_ANY(device);
    sim_process found[SIM_MAX_PROCESSES];
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(info->version == NVML_STRUCT_VERSION(nvmlProcessDetailList_v1_t, 1),
                NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    SIM_REQUIRE(info->mode < 4, NVML_ERROR_INVALID_ARGUMENT);
    unsigned int n = sim_processes(&call, types[info->mode], found, SIM_MAX_PROCESSES);
    result = sim_list_room(&info->numProcArrayEntries, n, info->procArray);
    for (unsigned int i = 0; result == NVML_SUCCESS && i < n; i++)
        info->procArray[i] = (nvmlProcessDetail_v1_t){found[i].pid, found[i].memory, found[i].gi, found[i].ci, 0};
    SIM_END(result);
}

SIM_API nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *samples,
                                                     unsigned int *count, nvml_ull since) {
    SIM_BEGIN_DEVICE(device);
    sim_process found[SIM_MAX_PROCESSES];
    SIM_REQUIRE(count, NVML_ERROR_INVALID_ARGUMENT);
    unsigned int n = sim_processes(&call, 0, found, SIM_MAX_PROCESSES);
    SIM_REQUIRE(n > 0, NVML_ERROR_NOT_FOUND);
    result = sim_list_room(count, n, samples);
    for (unsigned int i = 0; result == NVML_SUCCESS && i < n; i++) {
        unsigned int share = (unsigned int)(sim_or(&call, 0, "util.gpu") / n);
        samples[i] = (nvmlProcessUtilizationSample_t){found[i].pid, since + 1, share, share / 2, 0, 0};
    }
    SIM_END(result);
}
