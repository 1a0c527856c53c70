/* SPDX-License-Identifier: Apache-2.0
 *
 * MIG mode, profiles and GPU instances.
 */
#include <stdio.h>
#include <string.h>

#include "sim.h"

static bool mig_on(const sim_call *call) { return sim_or(call, 0, "mig.current") != 0; }

/* ---- mode ---- */

SIM_API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *now, unsigned int *pending) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(now && pending, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(sim_first(sim_uint(&call, now, "mig.current"), sim_uint(&call, pending, "mig.pending")));
}

static bool any_instance(const sim_call *call) {
    mig_instance found[SIM_MAX_GI];
    mig_instances(call, found);
    for (unsigned int gi = 0; gi < SIM_MAX_GI; gi++) {
        if (found[gi].used) return true;
    }
    return false;
}

/* The mode takes effect at once unless something uses the GPU; it is kept, as the InfoROM keeps it. */
SIM_API nvmlReturn_t nvmlDeviceSetMigMode(nvmlDevice_t device, unsigned int mode, nvmlReturn_t *activation) {
    SIM_BEGIN_DEVICE(device);
    unsigned int now;
    char lines[SIM_KEY * 2];
    SIM_REQUIRE(mode <= 1 && activation, NVML_ERROR_INVALID_ARGUMENT);
    result = sim_uint(&call, &now, "mig.current");
    SIM_REQUIRE(result == NVML_SUCCESS, result);
    SIM_REQUIRE(mode || !any_instance(&call), NVML_ERROR_IN_USE);
    bool busy = mode != now && sim_processes(&call, 0, NULL, 0) > 0;
    int used = snprintf(lines, sizeof lines, "gpu.%u.mig.pending = %u\n", call.gpu, mode);
    if (!busy) snprintf(lines + used, sizeof lines - (size_t)used, "gpu.%u.mig.current = %u\n", call.gpu, mode);
    *activation = busy ? NVML_ERROR_IN_USE : NVML_SUCCESS;
    SIM_END(sim_state_write(SIM_PERSISTENT, lines));
}

/* ---- profiles ---- */

static void profile_info(const mig_profile *p, nvmlGpuInstanceProfileInfo_t *out) {
    *out = (nvmlGpuInstanceProfileInfo_t){p->id,     0,         p->slices,  p->most,    p->sms,
                                          p->copy,   p->decode, p->encode,  p->jpeg,    p->ofa,
                                          p->memory_mb};
}

static void profile_info_v2(const mig_profile *p, nvmlGpuInstanceProfileInfo_v2_t *out) {
    unsigned int version = out->version;
    *out = (nvmlGpuInstanceProfileInfo_v2_t){version,   p->id,     0,         p->slices, p->most, p->sms, p->copy,
                                             p->decode, p->encode, p->jpeg,   p->ofa,    p->memory_mb, ""};
    snprintf(out->name, sizeof out->name, "MIG %s", p->name);
}

SIM_API nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t device, unsigned int index,
                                                         nvmlGpuInstanceProfileInfo_t *info) {
    SIM_BEGIN_DEVICE(device);
    mig_profile profile;
    SIM_REQUIRE(info && index < MIG_PROFILES, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(mig_profile_by_index(&call, index, &profile), NVML_ERROR_NOT_SUPPORTED);
    profile_info(&profile, info);
    SIM_END(NVML_SUCCESS);
}

static nvmlReturn_t versioned_profile(const char *function, nvmlDevice_t device, bool by_id, unsigned int wanted,
                                      nvmlGpuInstanceProfileInfo_v2_t *info) {
    sim_call call;
    nvmlReturn_t result = sim_enter_handle(&call, function, device, SIM_KIND(SIM_DEVICE));
    mig_profile profile;
    if (result != NVML_SUCCESS) return result;
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(info->version == NVML_STRUCT_VERSION(nvmlGpuInstanceProfileInfo_v2_t, 2),
                NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    bool known = by_id ? mig_profile_by_id(&call, wanted, &profile) : mig_profile_by_index(&call, wanted, &profile);
    SIM_REQUIRE(known, NVML_ERROR_NOT_SUPPORTED);
    profile_info_v2(&profile, info);
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoV(nvmlDevice_t device, unsigned int index,
                                                          nvmlGpuInstanceProfileInfo_v2_t *info) {
    return versioned_profile(__func__, device, false, index, info);
}
SIM_API nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoByIdV(nvmlDevice_t device, unsigned int id,
                                                              nvmlGpuInstanceProfileInfo_v2_t *info) {
    return versioned_profile(__func__, device, true, id, info);
}

/* entry of every (device, profile id, ...) function that needs MIG mode */
#define SIM_BEGIN_PROFILE(device, id)                                                     \
    SIM_BEGIN_DEVICE(device);                                                             \
    mig_profile profile;                                                                  \
    mig_instance taken[SIM_MAX_GI];                                                       \
    SIM_REQUIRE(mig_on(&call), NVML_ERROR_NOT_SUPPORTED);                                 \
    SIM_REQUIRE(mig_profile_by_id(&call, id, &profile), NVML_ERROR_INVALID_ARGUMENT);     \
    mig_instances(&call, taken)

static nvmlReturn_t possible_placements(const char *function, nvmlDevice_t device, unsigned int id,
                                        nvmlGpuInstancePlacement_t *placements, unsigned int *count) {
    sim_call call;
    nvmlReturn_t result = sim_enter_handle(&call, function, device, SIM_KIND(SIM_DEVICE));
    mig_profile profile;
    if (result != NVML_SUCCESS) return result;
    SIM_REQUIRE(count && mig_profile_by_id(&call, id, &profile), NVML_ERROR_INVALID_ARGUMENT);
    unsigned int room = *count;
    *count = profile.start_count;
    if (placements) {
        SIM_REQUIRE(room >= profile.start_count, NVML_ERROR_INSUFFICIENT_SIZE);
        for (unsigned int i = 0; i < profile.start_count; i++)
            placements[i] = (nvmlGpuInstancePlacement_t){profile.starts[i], profile.size};
    }
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements(nvmlDevice_t device, unsigned int id,
                                                                nvmlGpuInstancePlacement_t *placements,
                                                                unsigned int *count) {
    return possible_placements(__func__, device, id, placements, count);
}
SIM_API nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements_v2(nvmlDevice_t device, unsigned int id,
                                                                   nvmlGpuInstancePlacement_t *placements,
                                                                   unsigned int *count) {
    return possible_placements(__func__, device, id, placements, count);
}

SIM_API nvmlReturn_t nvmlDeviceGetGpuInstanceRemainingCapacity(nvmlDevice_t device, unsigned int id,
                                                               unsigned int *count) {
    SIM_BEGIN_PROFILE(device, id);
    unsigned int start;
    SIM_REQUIRE(count, NVML_ERROR_INVALID_ARGUMENT);
    *count = mig_places(&profile, taken, &start);
    SIM_END(NVML_SUCCESS);
}

/* ---- GPU instances ---- */

/* Look and write under the lock, so that two processes never take the same place. */
static nvmlReturn_t create_gpu_instance(const char *function, nvmlDevice_t device, unsigned int id,
                                        const nvmlGpuInstancePlacement_t *placement, nvmlGpuInstance_t *instance) {
    sim_call call;
    mig_profile profile;
    mig_instance taken[SIM_MAX_GI];
    char line[SIM_KEY];
    int lock;
    unsigned int start = 0;
    nvmlReturn_t result = sim_enter_handle(&call, function, device, SIM_KIND(SIM_DEVICE));
    if (result != NVML_SUCCESS) return result;
    SIM_REQUIRE(mig_on(&call), NVML_ERROR_NOT_SUPPORTED);
    SIM_REQUIRE(instance && mig_profile_by_id(&call, id, &profile), NVML_ERROR_INVALID_ARGUMENT);
    result = sim_state_lock(SIM_VOLATILE, &lock);
    SIM_REQUIRE(result == NVML_SUCCESS, result);
    sim_release(call.conf);
    call.conf = sim_acquire();
    if (placement) { /* only this one place counts */
        profile.starts[0] = placement->start;
        profile.start_count = 1;
    }
    mig_instances(&call, taken);
    if (mig_places(&profile, taken, &start) == 0) {
        result = NVML_ERROR_INSUFFICIENT_RESOURCES;
    } else {
        unsigned int gi = mig_gpu_instance_id(start, profile.size);
        snprintf(line, sizeof line, "gpu.%u.gi.%u = %u %u %u\n", call.gpu, gi, profile.index, start, profile.size);
        result = sim_state_append(SIM_VOLATILE, line);
        *instance = sim_handle_gi(call.gpu, gi);
    }
    sim_state_unlock(lock);
    SIM_END(result);
}

SIM_API nvmlReturn_t nvmlDeviceCreateGpuInstance(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *instance) {
    return create_gpu_instance(__func__, device, id, NULL, instance);
}
SIM_API nvmlReturn_t nvmlDeviceCreateGpuInstanceWithPlacement(nvmlDevice_t device, unsigned int id,
                                                              const nvmlGpuInstancePlacement_t *placement,
                                                              nvmlGpuInstance_t *instance) {
    return create_gpu_instance(__func__, device, id, placement, instance);
}

SIM_API nvmlReturn_t nvmlDeviceGetGpuInstances(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *out,
                                               unsigned int *count) {
    SIM_BEGIN_PROFILE(device, id);
    SIM_REQUIRE(out && count, NVML_ERROR_INVALID_ARGUMENT);
    *count = 0;
    for (unsigned int gi = 0; gi < SIM_MAX_GI; gi++) {
        if (taken[gi].used && taken[gi].profile == profile.index) out[(*count)++] = sim_handle_gi(call.gpu, gi);
    }
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetGpuInstanceById(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *instance) {
    SIM_BEGIN_DEVICE(device);
    mig_instance taken[SIM_MAX_GI];
    SIM_REQUIRE(mig_on(&call), NVML_ERROR_NOT_SUPPORTED);
    SIM_REQUIRE(instance, NVML_ERROR_INVALID_ARGUMENT);
    mig_instances(&call, taken);
    SIM_REQUIRE(id < SIM_MAX_GI && taken[id].used, NVML_ERROR_NOT_FOUND);
    *instance = sim_handle_gi(call.gpu, id);
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlGpuInstanceDestroy(nvmlGpuInstance_t instance) {
    SIM_BEGIN_GI(instance);
    char line[SIM_KEY];
    SIM_REQUIRE(mig_slices_in_use(inside) == 0, NVML_ERROR_IN_USE);
    snprintf(line, sizeof line, "gpu.%u.gi.%u = -\n", call.gpu, gi);
    SIM_END(sim_state_write(SIM_VOLATILE, line));
}

SIM_API nvmlReturn_t nvmlGpuInstanceGetInfo(nvmlGpuInstance_t instance, nvmlGpuInstanceInfo_t *info) {
    SIM_BEGIN_GI(instance);
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    *info = (nvmlGpuInstanceInfo_t){
        sim_handle_device(call.gpu), gi, profile.id, {taken[gi].start, taken[gi].size}};
    SIM_END(NVML_SUCCESS);
}
