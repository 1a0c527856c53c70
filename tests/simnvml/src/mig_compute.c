/* SPDX-License-Identifier: Apache-2.0
 *
 * MIG compute instances: parts of a GPU instance.
 */
#include <stdio.h>
#include <string.h>

#include "sim.h"

static void compute_name(const mig_profile *profile, unsigned int slices, char *out, size_t size) {
    if (slices < profile->slices)
        snprintf(out, size, "%uc.%s", slices, profile->name);
    else
        snprintf(out, size, "%s", profile->name);
}

static bool compute_profile(const mig_profile *gpu, unsigned int index, nvmlComputeInstanceProfileInfo_t *out) {
    unsigned int slices = mig_compute_slices(index);
    if (slices == 0 || slices > gpu->slices) return false;
    *out = (nvmlComputeInstanceProfileInfo_t){
        index,     slices,      gpu->slices / slices, gpu->sms / gpu->slices * slices, gpu->copy, gpu->decode,
        gpu->encode, gpu->jpeg, gpu->ofa};
    if (slices == gpu->slices) out->multiprocessorCount = gpu->sms;
    return true;
}

SIM_API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfo(nvmlGpuInstance_t instance, unsigned int index,
                                                                  unsigned int engine,
                                                                  nvmlComputeInstanceProfileInfo_t *info) {
    SIM_BEGIN_GI(instance);
    SIM_REQUIRE(info && engine == 0, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(compute_profile(&profile, index, info) ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED);
}

SIM_API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfoV(nvmlGpuInstance_t instance, unsigned int index,
                                                                   unsigned int engine,
                                                                   nvmlComputeInstanceProfileInfo_v2_t *info) {
    SIM_BEGIN_GI(instance);
    nvmlComputeInstanceProfileInfo_t p;
    char name[64];
    SIM_REQUIRE(info && engine == 0, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(info->version == NVML_STRUCT_VERSION(nvmlComputeInstanceProfileInfo_v2_t, 2),
                NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    SIM_REQUIRE(compute_profile(&profile, index, &p), NVML_ERROR_NOT_SUPPORTED);
    *info = (nvmlComputeInstanceProfileInfo_v2_t){info->version,
                                                  p.id,
                                                  p.sliceCount,
                                                  p.instanceCount,
                                                  p.multiprocessorCount,
                                                  p.sharedCopyEngineCount,
                                                  p.sharedDecoderCount,
                                                  p.sharedEncoderCount,
                                                  p.sharedJpegCount,
                                                  p.sharedOfaCount,
                                                  ""};
    compute_name(&profile, p.sliceCount, name, sizeof name);
    snprintf(info->name, sizeof info->name, "MIG %s", name);
    SIM_END(NVML_SUCCESS);
}

/* first free start, or false */
static bool compute_place(const mig_profile *gpu, const mig_instance inside[SIM_MAX_CI], unsigned int slices,
                          unsigned int from, unsigned int *start) {
    for (*start = from; *start + slices <= gpu->slices; (*start)++) {
        bool free_place = true;
        for (unsigned int ci = 0; ci < SIM_MAX_CI; ci++) {
            const mig_instance *other = &inside[ci];
            if (other->used && *start < other->start + other->size && other->start < *start + slices) free_place = false;
        }
        if (free_place) return true;
    }
    return false;
}

SIM_API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceRemainingCapacity(nvmlGpuInstance_t instance, unsigned int id,
                                                                        unsigned int *count) {
    SIM_BEGIN_GI(instance);
    unsigned int slices = mig_compute_slices(id);
    SIM_REQUIRE(count && slices && slices <= profile.slices, NVML_ERROR_INVALID_ARGUMENT);
    *count = (profile.slices - mig_slices_in_use(inside)) / slices;
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlGpuInstanceGetComputeInstancePossiblePlacements(nvmlGpuInstance_t instance, unsigned int id,
                                                                         nvmlComputeInstancePlacement_t *placements,
                                                                         unsigned int *count) {
    SIM_BEGIN_GI(instance);
    unsigned int slices = mig_compute_slices(id), n = 0;
    SIM_REQUIRE(count && slices && slices <= profile.slices, NVML_ERROR_INVALID_ARGUMENT);
    unsigned int room = *count;
    *count = profile.slices - slices + 1;
    SIM_REQUIRE(!placements || room >= *count, NVML_ERROR_INSUFFICIENT_SIZE);
    for (; placements && n < *count; n++) placements[n] = (nvmlComputeInstancePlacement_t){n, slices};
    SIM_END(NVML_SUCCESS);
}

static nvmlReturn_t create_compute_instance(const char *function, nvmlGpuInstance_t instance, unsigned int id,
                                            const nvmlComputeInstancePlacement_t *placement,
                                            nvmlComputeInstance_t *out) {
    sim_call call;
    mig_profile profile;
    mig_instance taken[SIM_MAX_GI], inside[SIM_MAX_CI];
    char line[SIM_KEY];
    int lock;
    unsigned int start = 0, ci = 0, slices = mig_compute_slices(id);
    nvmlReturn_t result = sim_enter_handle(&call, function, instance, SIM_KIND(SIM_GI));
    if (result != NVML_SUCCESS) return result;
    unsigned int gi = call.handle->gi;
    result = sim_state_lock(SIM_VOLATILE, &lock);
    SIM_REQUIRE(result == NVML_SUCCESS, result);
    sim_release(call.conf);
    call.conf = sim_acquire();
    mig_instances(&call, taken);
    mig_compute(&call, gi, inside);
    while (ci < SIM_MAX_CI && inside[ci].used) ci++;
    if (!out || !taken[gi].used || !mig_profile_by_index(&call, taken[gi].profile, &profile) || slices == 0 ||
        slices > profile.slices) {
        result = NVML_ERROR_INVALID_ARGUMENT;
    } else if (ci == SIM_MAX_CI || !compute_place(&profile, inside, slices, placement ? placement->start : 0, &start) ||
               (placement && placement->start != start)) {
        result = NVML_ERROR_INSUFFICIENT_RESOURCES;
    } else {
        snprintf(line, sizeof line, "gpu.%u.gi.%u.ci.%u = %u %u %u\n", call.gpu, gi, ci, id, start, slices);
        result = sim_state_append(SIM_VOLATILE, line);
        *out = sim_handle_ci(call.gpu, gi, ci);
    }
    sim_state_unlock(lock);
    SIM_END(result);
}

SIM_API nvmlReturn_t nvmlGpuInstanceCreateComputeInstance(nvmlGpuInstance_t instance, unsigned int id,
                                                          nvmlComputeInstance_t *out) {
    return create_compute_instance(__func__, instance, id, NULL, out);
}
SIM_API nvmlReturn_t nvmlGpuInstanceCreateComputeInstanceWithPlacement(nvmlGpuInstance_t instance, unsigned int id,
                                                                       const nvmlComputeInstancePlacement_t *placement,
                                                                       nvmlComputeInstance_t *out) {
    return create_compute_instance(__func__, instance, id, placement, out);
}

SIM_API nvmlReturn_t nvmlGpuInstanceGetComputeInstances(nvmlGpuInstance_t instance, unsigned int id,
                                                        nvmlComputeInstance_t *out, unsigned int *count) {
    SIM_BEGIN_GI(instance);
    SIM_REQUIRE(out && count, NVML_ERROR_INVALID_ARGUMENT);
    *count = 0;
    for (unsigned int ci = 0; ci < SIM_MAX_CI; ci++) {
        if (inside[ci].used && inside[ci].profile == id) out[(*count)++] = sim_handle_ci(call.gpu, gi, ci);
    }
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceById(nvmlGpuInstance_t instance, unsigned int id,
                                                           nvmlComputeInstance_t *out) {
    SIM_BEGIN_GI(instance);
    SIM_REQUIRE(out, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(id < SIM_MAX_CI && inside[id].used, NVML_ERROR_NOT_FOUND);
    *out = sim_handle_ci(call.gpu, gi, id);
    SIM_END(NVML_SUCCESS);
}

static nvmlReturn_t compute_info(const char *function, nvmlComputeInstance_t instance,
                                 nvmlComputeInstanceInfo_t *info) {
    sim_call call;
    mig_instance inside[SIM_MAX_CI];
    nvmlReturn_t result = sim_enter_handle(&call, function, instance, SIM_KIND(SIM_CI));
    if (result != NVML_SUCCESS) return result;
    unsigned int gi = call.handle->gi, ci = call.handle->ci;
    mig_compute(&call, gi, inside);
    SIM_REQUIRE(info && inside[ci].used, NVML_ERROR_INVALID_ARGUMENT);
    *info = (nvmlComputeInstanceInfo_t){sim_handle_device(call.gpu),
                                        sim_handle_gi(call.gpu, gi),
                                        ci,
                                        inside[ci].profile,
                                        {inside[ci].start, inside[ci].size}};
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlComputeInstanceGetInfo(nvmlComputeInstance_t instance, nvmlComputeInstanceInfo_t *info) {
    return compute_info(__func__, instance, info);
}
SIM_API nvmlReturn_t nvmlComputeInstanceGetInfo_v2(nvmlComputeInstance_t instance, nvmlComputeInstanceInfo_t *info) {
    return compute_info(__func__, instance, info);
}

SIM_API nvmlReturn_t nvmlComputeInstanceDestroy(nvmlComputeInstance_t instance) {
    SIM_BEGIN_HANDLE(instance, SIM_KIND(SIM_CI));
    sim_process processes[SIM_MAX_PROCESSES];
    mig_instance inside[SIM_MAX_CI];
    char line[SIM_KEY];
    unsigned int gi = call.handle->gi, ci = call.handle->ci;
    mig_compute(&call, gi, inside);
    SIM_REQUIRE(inside[ci].used, NVML_ERROR_INVALID_ARGUMENT);
    unsigned int running = sim_processes(&call, 0, processes, SIM_MAX_PROCESSES);
    for (unsigned int i = 0; i < running; i++) {
        SIM_REQUIRE(processes[i].gi != gi || processes[i].ci != ci, NVML_ERROR_IN_USE);
    }
    snprintf(line, sizeof line, "gpu.%u.gi.%u.ci.%u = -\n", call.gpu, gi, ci);
    SIM_END(sim_state_write(SIM_VOLATILE, line));
}
