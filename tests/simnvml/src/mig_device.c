/* SPDX-License-Identifier: Apache-2.0
 *
 * MIG devices: a compute instance seen as a GPU.
 */
#include <stdio.h>
#include <string.h>

#include "sim.h"

typedef struct {
    mig_profile profile;
    mig_instance gpu, compute;
} mig_device;

static bool read_device(const sim_call *call, mig_device *out) {
    mig_instance gpus[SIM_MAX_GI], computes[SIM_MAX_CI];
    const struct sim_handle *handle = call->handle;
    if (!sim_or(call, 0, "mig.current")) return false;
    mig_instances(call, gpus);
    mig_compute(call, handle->gi, computes);
    out->gpu = gpus[handle->gi];
    out->compute = computes[handle->ci];
    return out->gpu.used && out->compute.used && mig_profile_by_index(call, out->gpu.profile, &out->profile);
}

nvmlReturn_t sim_mig_memory(const sim_call *call, nvml_ull *bytes) {
    mig_device device;
    if (!read_device(call, &device)) return NVML_ERROR_INVALID_ARGUMENT;
    *bytes = (nvml_ull)device.profile.memory_mb * 1024 * 1024;
    return NVML_SUCCESS;
}

nvmlReturn_t sim_mig_uuid(const sim_call *call, char *out, size_t size) {
    mig_device device;
    if (!read_device(call, &device)) return NVML_ERROR_INVALID_ARGUMENT;
    int length = snprintf(out, size, "MIG-%08x-aaaa-%04x-%04x-%012x", call->gpu + 1, call->handle->gi,
                          call->handle->ci, call->gpu + 1);
    return (size_t)length < size ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

nvmlReturn_t sim_mig_name(const sim_call *call, char *out, size_t size) {
    mig_device device;
    char gpu[SIM_VALUE];
    if (!read_device(call, &device)) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_text(call, gpu, sizeof gpu, "name");
    if (result != NVML_SUCCESS) return result;
    bool whole = device.compute.size == device.profile.slices;
    int length = whole ? snprintf(out, size, "%s MIG %s", gpu, device.profile.name)
                       : snprintf(out, size, "%s MIG %uc.%s", gpu, device.compute.size, device.profile.name);
    return (size_t)length < size ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

SIM_API nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *is_mig) {
    SIM_BEGIN_ANY(device);
    SIM_REQUIRE(is_mig, NVML_ERROR_INVALID_ARGUMENT);
    *is_mig = call.handle->kind == SIM_MIG;
    SIM_END(NVML_SUCCESS);
}

static nvmlReturn_t part_of_mig(const char *function, nvmlDevice_t device, unsigned int *id, bool compute) {
    sim_call call;
    nvmlReturn_t result = sim_enter_handle(&call, function, device, SIM_KIND(SIM_DEVICE) | SIM_KIND(SIM_MIG));
    if (result != NVML_SUCCESS) return result;
    SIM_REQUIRE(call.handle->kind == SIM_MIG, NVML_ERROR_NOT_SUPPORTED);
    SIM_REQUIRE(id, NVML_ERROR_INVALID_ARGUMENT);
    *id = compute ? call.handle->ci : call.handle->gi;
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *id) {
    return part_of_mig(__func__, device, id, false);
}
SIM_API nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *id) {
    return part_of_mig(__func__, device, id, true);
}

SIM_API nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig, nvmlDevice_t *device) {
    SIM_BEGIN_HANDLE(mig, SIM_KIND(SIM_MIG));
    SIM_REQUIRE(device, NVML_ERROR_INVALID_ARGUMENT);
    *device = sim_handle_device(call.gpu);
    SIM_END(NVML_SUCCESS);
}

/* MIG devices of one GPU are counted through its GPU instances; false when there are not so many */
static bool nth_device(const sim_call *call, unsigned int wanted, unsigned int *gi, unsigned int *ci) {
    mig_instance gpus[SIM_MAX_GI], computes[SIM_MAX_CI];
    mig_instances(call, gpus);
    for (*gi = 0; *gi < SIM_MAX_GI; (*gi)++) {
        mig_compute(call, *gi, computes);
        for (*ci = 0; gpus[*gi].used && *ci < SIM_MAX_CI; (*ci)++) {
            if (computes[*ci].used && wanted-- == 0) return true;
        }
    }
    return false;
}

SIM_API nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *mig) {
    SIM_BEGIN_DEVICE(device);
    unsigned int gi, ci;
    SIM_REQUIRE(mig && index < sim_or(&call, 0, "mig.max_devices"), NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(sim_or(&call, 0, "mig.current") && nth_device(&call, index, &gi, &ci), NVML_ERROR_NOT_FOUND);
    *mig = sim_handle_mig(call.gpu, gi, ci);
    SIM_END(NVML_SUCCESS);
}

/* of a GPU its number, of a MIG device its number on that GPU */
SIM_API nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index) {
    SIM_BEGIN_ANY(device);
    unsigned int gi, ci;
    SIM_REQUIRE(index, NVML_ERROR_INVALID_ARGUMENT);
    *index = call.gpu;
    SIM_REQUIRE(call.handle->kind == SIM_MIG, NVML_SUCCESS);
    for (*index = 0; nth_device(&call, *index, &gi, &ci); (*index)++) {
        if (gi == call.handle->gi && ci == call.handle->ci) SIM_END(NVML_SUCCESS);
    }
    SIM_END(NVML_ERROR_INVALID_ARGUMENT);
}

static nvmlReturn_t attributes(const char *function, nvmlDevice_t device, nvmlDeviceAttributes_t *out) {
    sim_call call;
    mig_device found;
    nvmlReturn_t result = sim_enter_handle(&call, function, device, SIM_KIND(SIM_DEVICE) | SIM_KIND(SIM_MIG));
    if (result != NVML_SUCCESS) return result;
    SIM_REQUIRE(call.handle->kind == SIM_MIG, NVML_ERROR_NOT_SUPPORTED);
    SIM_REQUIRE(out && read_device(&call, &found), NVML_ERROR_INVALID_ARGUMENT);
    const mig_profile *p = &found.profile;
    *out = (nvmlDeviceAttributes_t){p->sms / p->slices * found.compute.size,
                                    p->copy,
                                    p->decode,
                                    p->encode,
                                    p->jpeg,
                                    p->ofa,
                                    p->slices,
                                    found.compute.size,
                                    p->memory_mb};
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetAttributes(nvmlDevice_t device, nvmlDeviceAttributes_t *out) {
    return attributes(__func__, device, out);
}
SIM_API nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *out) {
    return attributes(__func__, device, out);
}
