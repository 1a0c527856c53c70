/* SPDX-License-Identifier: Apache-2.0
 *
 * The plain getters: most of NVML falls into a few argument shapes.
 */
#include <stdio.h>
#include <string.h>

#include "sim.h"

/* (device, unsigned int *) */
#define GET_UINT(name, key)                                     \
    SIM_API nvmlReturn_t name(nvmlDevice_t device, unsigned int *out) { \
        SIM_BEGIN_DEVICE(device);                               \
        SIM_REQUIRE(out, NVML_ERROR_INVALID_ARGUMENT);          \
        SIM_END(sim_uint(&call, out, "%s", key));               \
    }

/* (device, unsigned long long *) */
#define GET_ULL(name, key)                                      \
    SIM_API nvmlReturn_t name(nvmlDevice_t device, nvml_ull *out) { \
        SIM_BEGIN_DEVICE(device);                               \
        SIM_REQUIRE(out, NVML_ERROR_INVALID_ARGUMENT);          \
        SIM_END(sim_ull(&call, out, "%s", key));                \
    }

/* (device, char *, unsigned int length) */
#define GET_TEXT(name, key)                                     \
    SIM_API nvmlReturn_t name(nvmlDevice_t device, char *out, unsigned int length) { \
        SIM_BEGIN_DEVICE(device);                               \
        SIM_REQUIRE(out, NVML_ERROR_INVALID_ARGUMENT);          \
        SIM_END(sim_text(&call, out, length, "%s", key));       \
    }

/* (device, unsigned int *, unsigned int *): a caller may want only one of the two */
#define GET_UINT2(name, key_a, key_b)                           \
    SIM_API nvmlReturn_t name(nvmlDevice_t device, unsigned int *a, unsigned int *b) { \
        SIM_BEGIN_DEVICE(device);                               \
        unsigned int first, second;                             \
        result = sim_first(sim_uint(&call, &first, "%s", key_a), sim_uint(&call, &second, "%s", key_b)); \
        SIM_REQUIRE(result == NVML_SUCCESS, result);            \
        SIM_REQUIRE(a || b, NVML_ERROR_INVALID_ARGUMENT);       \
        if (a) *a = first;                                      \
        if (b) *b = second;                                     \
        SIM_END(NVML_SUCCESS);                                  \
    }

/* (device, enum, unsigned int *): the enum picks the last part of the key */
#define GET_BY_ENUM(name, prefix, words)                        \
    SIM_API nvmlReturn_t name(nvmlDevice_t device, unsigned int which, unsigned int *out) { \
        SIM_BEGIN_DEVICE(device);                               \
        SIM_REQUIRE(out && which < sizeof words / sizeof *words, NVML_ERROR_INVALID_ARGUMENT); \
        SIM_END(sim_uint(&call, out, "%s.%s", prefix, words[which])); \
    }

/* (device, versioned struct *): fill is a statement on `info` */
#define GET_VERSIONED(name, type, number, fill)                 \
    SIM_API nvmlReturn_t name(nvmlDevice_t device, type *info) { \
        SIM_BEGIN_DEVICE(device);                               \
        SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);         \
        SIM_REQUIRE(info->version == NVML_STRUCT_VERSION(type, number), NVML_ERROR_ARGUMENT_VERSION_MISMATCH); \
        SIM_END(fill);                                          \
    }

static const char *const clocks[] = {"graphics", "sm", "mem", "video"};
static const char *const thresholds[] = {"shutdown",     "slowdown",      "mem_max",      "gpu_max",
                                         "acoustic_min", "acoustic_curr", "acoustic_max", "gps_curr"};
static const char *const directions[] = {"tx", "rx"};

GET_UINT(nvmlDeviceGetBrand, "brand")
GET_UINT(nvmlDeviceGetBoardId, "board_id")
GET_UINT(nvmlDeviceGetMultiGpuBoard, "multi_gpu_board")
GET_UINT(nvmlDeviceGetModuleId, "module_id")
GET_UINT(nvmlDeviceGetArchitecture, "arch")
GET_UINT(nvmlDeviceGetBusType, "bus_type")
GET_UINT(nvmlDeviceGetIrqNum, "irq")
GET_UINT(nvmlDeviceGetNumGpuCores, "cores")
GET_UINT(nvmlDeviceGetMemoryBusWidth, "memory.bus_width")
GET_UINT(nvmlDeviceGetDisplayMode, "display.mode")
GET_UINT(nvmlDeviceGetDisplayActive, "display.active")
GET_UINT(nvmlDeviceGetPersistenceMode, "persistence")
GET_UINT(nvmlDeviceGetComputeMode, "compute_mode")
GET_UINT(nvmlDeviceGetPerformanceState, "pstate")
GET_UINT(nvmlDeviceGetPowerState, "pstate")
GET_UINT(nvmlDeviceGetPowerSource, "power.source")
GET_UINT(nvmlDeviceGetPowerManagementMode, "power.management")
GET_UINT(nvmlDeviceGetPowerManagementLimit, "power.limit")
GET_UINT(nvmlDeviceGetPowerManagementDefaultLimit, "power.default")
GET_UINT(nvmlDeviceGetEnforcedPowerLimit, "power.limit")
GET_UINT(nvmlDeviceGetPowerUsage, "power.draw")
GET_UINT(nvmlDeviceGetFanSpeed, "fan.speed")
GET_UINT(nvmlDeviceGetNumFans, "fan.count")
GET_UINT(nvmlDeviceGetCurrPcieLinkGeneration, "pcie.gen")
GET_UINT(nvmlDeviceGetCurrPcieLinkWidth, "pcie.width")
GET_UINT(nvmlDeviceGetMaxPcieLinkGeneration, "pcie.max_gen")
GET_UINT(nvmlDeviceGetMaxPcieLinkWidth, "pcie.max_width")
GET_UINT(nvmlDeviceGetGpuMaxPcieLinkGeneration, "pcie.gpu_max_gen")
GET_UINT(nvmlDeviceGetPcieReplayCounter, "pcie.replay")
GET_UINT(nvmlDeviceGetPcieLinkMaxSpeed, "pcie.max_speed_id")
GET_UINT(nvmlDeviceGetAccountingMode, "accounting.mode")
GET_UINT(nvmlDeviceGetAccountingBufferSize, "accounting.buffer_size")
GET_UINT(nvmlDeviceGetInforomConfigurationChecksum, "inforom.checksum")
GET_UINT(nvmlDeviceGetMaxMigDeviceCount, "mig.max_devices")
GET_UINT(nvmlDeviceGetVirtualizationMode, "virtualization")
GET_UINT(nvmlDeviceGetHostVgpuMode, "host_vgpu_mode")
GET_UINT(nvmlDeviceGetAdaptiveClockInfoStatus, "clock.adaptive")
GET_UINT2(nvmlDeviceGetPowerManagementLimitConstraints, "power.min", "power.max")
GET_UINT2(nvmlDeviceGetGspFirmwareMode, "gsp.enabled", "gsp.default")
GET_UINT2(nvmlDeviceGetMinMaxFanSpeed, "fan.min", "fan.max")
GET_UINT2(nvmlDeviceGetAutoBoostedClocksEnabled, "clock.auto_boost", "clock.auto_boost_default")
GET_UINT2(nvmlDeviceGetGpuOperationMode, "gom.current", "gom.pending")
GET_UINT2(nvmlDeviceGetDriverModel, "driver_model.current", "driver_model.pending")
GET_UINT2(nvmlDeviceGetDriverModel_v2, "driver_model.current", "driver_model.pending")
GET_UINT2(nvmlDeviceGetEncoderUtilization, "util.encoder", "util.period_us")
GET_UINT2(nvmlDeviceGetDecoderUtilization, "util.decoder", "util.period_us")
GET_UINT2(nvmlDeviceGetJpgUtilization, "util.jpeg", "util.period_us")
GET_UINT2(nvmlDeviceGetOfaUtilization, "util.ofa", "util.period_us")
GET_ULL(nvmlDeviceGetTotalEnergyConsumption, "power.energy")
GET_ULL(nvmlDeviceGetCurrentClocksThrottleReasons, "event.reasons")
GET_ULL(nvmlDeviceGetCurrentClocksEventReasons, "event.reasons")
GET_ULL(nvmlDeviceGetSupportedClocksThrottleReasons, "event.supported")
GET_ULL(nvmlDeviceGetSupportedClocksEventReasons, "event.supported")
GET_ULL(nvmlDeviceGetSupportedEventTypes, "event.types")
GET_TEXT(nvmlDeviceGetSerial, "serial")
GET_TEXT(nvmlDeviceGetVbiosVersion, "vbios")
GET_TEXT(nvmlDeviceGetBoardPartNumber, "board_part_number")
GET_TEXT(nvmlDeviceGetInforomImageVersion, "inforom.image")
GET_BY_ENUM(nvmlDeviceGetClockInfo, "clock", clocks)
GET_BY_ENUM(nvmlDeviceGetMaxClockInfo, "clock.max", clocks)
GET_BY_ENUM(nvmlDeviceGetApplicationsClock, "clock.app", clocks)
GET_BY_ENUM(nvmlDeviceGetDefaultApplicationsClock, "clock.app_default", clocks)
GET_BY_ENUM(nvmlDeviceGetMaxCustomerBoostClock, "clock.boost_max", clocks)
GET_BY_ENUM(nvmlDeviceGetTemperatureThreshold, "temp.threshold", thresholds)
GET_BY_ENUM(nvmlDeviceGetPcieThroughput, "pcie.throughput", directions)

GET_VERSIONED(nvmlDeviceGetMarginTemperature, nvmlMarginTemperature_v1_t, 1,
              sim_int(&call, &info->marginTemperature, "temp.margin"))
GET_VERSIONED(nvmlDeviceGetFanSpeedRPM, nvmlFanSpeedInfo_t, 1, sim_uint(&call, &info->speed, "fan.rpm"))
GET_VERSIONED(nvmlDeviceGetPdi, nvmlPdi_t, 1, sim_ull(&call, &info->value, "pdi"))
GET_VERSIONED(nvmlDeviceGetAddressingMode, nvmlDeviceAddressingMode_t, 1,
              sim_uint(&call, &info->value, "addressing_mode"))
GET_VERSIONED(nvmlDeviceGetCapabilities, nvmlDeviceCapabilities_v1_t, 1,
              sim_uint(&call, &info->capMask, "capabilities"))
GET_VERSIONED(nvmlDeviceGetRepairStatus, nvmlRepairStatus_t, 1,
              sim_first(sim_uint(&call, &info->bChannelRepairPending, "repair.channel_pending"),
                        sim_uint(&call, &info->bTpcRepairPending, "repair.tpc_pending")))

SIM_API nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(minor, NVML_ERROR_INVALID_ARGUMENT);
    *minor = (unsigned int)sim_or(&call, call.gpu, "minor");
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length) {
    SIM_BEGIN_ANY(device);
    SIM_REQUIRE(name, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(call.handle->kind == SIM_MIG ? sim_mig_name(&call, name, length) : sim_text(&call, name, length, "name"));
}

SIM_API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length) {
    SIM_BEGIN_ANY(device);
    SIM_REQUIRE(uuid, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(call.handle->kind == SIM_MIG ? sim_mig_uuid(&call, uuid, length) : sim_text(&call, uuid, length, "uuid"));
}

SIM_API nvmlReturn_t nvmlDeviceGetInforomVersion(nvmlDevice_t device, unsigned int object, char *out,
                                                 unsigned int length) {
    static const char *const objects[] = {"oem", "ecc", "power", "den"};
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(out && object < 4, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(sim_text(&call, out, length, "inforom.%s", objects[object]));
}

SIM_API nvmlReturn_t nvmlDeviceValidateInforom(nvmlDevice_t device) {
    SIM_BEGIN_DEVICE(device);
    unsigned int valid;
    result = sim_uint(&call, &valid, "inforom.valid");
    SIM_END(result == NVML_SUCCESS && !valid ? 14 : result);
}

SIM_API nvmlReturn_t nvmlDeviceGetLastBBXFlushTime(nvmlDevice_t device, nvml_ull *timestamp, unsigned long *duration) {
    SIM_BEGIN_DEVICE(device);
    nvml_ull took = 0;
    SIM_REQUIRE(timestamp && duration, NVML_ERROR_INVALID_ARGUMENT);
    result = sim_first(sim_ull(&call, timestamp, "bbx.flush_time_us"), sim_ull(&call, &took, "bbx.flush_duration_us"));
    *duration = (unsigned long)took;
    SIM_END(result);
}

SIM_API nvmlReturn_t nvmlDeviceGetGspFirmwareVersion(nvmlDevice_t device, char *version) {
    SIM_BEGIN_DEVICE(device);
    char text[64];
    SIM_REQUIRE(version, NVML_ERROR_INVALID_ARGUMENT);
    result = sim_text(&call, text, sizeof text, "gsp.version");
    if (result == NVML_SUCCESS && strcmp(text, "driver") == 0 &&
        !sim_system_text(call.conf, "driver_version", text, sizeof text))
        result = NVML_ERROR_NOT_SUPPORTED;
    if (result == NVML_SUCCESS) strcpy(version, text);
    SIM_END(result);
}

SIM_API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    SIM_BEGIN_DEVICE(device);
    char text[SIM_VALUE];
    SIM_REQUIRE(major && minor, NVML_ERROR_INVALID_ARGUMENT);
    result = sim_text(&call, text, sizeof text, "cc");
    if (result == NVML_SUCCESS && sscanf(text, "%d.%d", major, minor) != 2) result = NVML_ERROR_UNKNOWN;
    SIM_END(result);
}

SIM_API nvmlReturn_t nvmlDeviceGetC2cModeInfoV(nvmlDevice_t device, nvmlC2cModeInfo_v1_t *info) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(sim_uint(&call, &info->isC2cEnabled, "c2c"));
}

SIM_API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned int sensor, unsigned int *temperature) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(temperature && sensor == 0, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(sim_uint(&call, temperature, "temp.gpu"));
}

SIM_API nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_v1_t *info) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(info->version == NVML_STRUCT_VERSION(nvmlTemperature_v1_t, 1), NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    SIM_REQUIRE(info->sensorType == 0, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(sim_int(&call, &info->temperature, "temp.gpu"));
}

static nvmlReturn_t fan_value(const char *function, nvmlDevice_t device, unsigned int fan, unsigned int *out,
                              const char *key) {
    sim_call call;
    nvmlReturn_t result = sim_enter_handle(&call, function, device, SIM_KIND(SIM_DEVICE));
    unsigned int fans = 0;
    if (result != NVML_SUCCESS) return result;
    result = sim_uint(&call, &fans, "fan.count");
    SIM_REQUIRE(result == NVML_SUCCESS && fans > 0, NVML_ERROR_NOT_SUPPORTED);
    SIM_REQUIRE(out && fan < fans, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(sim_uint(&call, out, "%s", key));
}

SIM_API nvmlReturn_t nvmlDeviceGetFanSpeed_v2(nvmlDevice_t device, unsigned int fan, unsigned int *speed) {
    return fan_value(__func__, device, fan, speed, "fan.speed");
}
SIM_API nvmlReturn_t nvmlDeviceGetTargetFanSpeed(nvmlDevice_t device, unsigned int fan, unsigned int *speed) {
    return fan_value(__func__, device, fan, speed, "fan.speed");
}
SIM_API nvmlReturn_t nvmlDeviceGetFanControlPolicy_v2(nvmlDevice_t device, unsigned int fan, unsigned int *policy) {
    return fan_value(__func__, device, fan, policy, "fan.policy");
}

SIM_API nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t device, unsigned int type, unsigned int id, unsigned int *clock) {
    static const char *const prefixes[] = {"clock", "clock.app", "clock.app_default", "clock.boost_max"};
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(clock && type < 4 && id < 4, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(sim_uint(&call, clock, "%s.%s", prefixes[id], clocks[type]));
}

SIM_API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *info) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(!sim_or(&call, 0, "mig.current"), NVML_ERROR_NOT_SUPPORTED); /* as on real hardware in MIG mode */
    SIM_END(sim_first(sim_uint(&call, &info->gpu, "util.gpu"), sim_uint(&call, &info->memory, "util.memory")));
}

SIM_API nvmlReturn_t nvmlDeviceGetEncoderStats(nvmlDevice_t device, unsigned int *sessions, unsigned int *fps,
                                               unsigned int *latency) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(sessions && fps && latency, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(sim_raw(&call, "util.encoder"), NVML_ERROR_NOT_SUPPORTED);
    *sessions = *fps = *latency = 0;
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetFBCStats(nvmlDevice_t device, unsigned int stats[3]) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(stats, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(sim_raw(&call, "util.encoder"), NVML_ERROR_NOT_SUPPORTED);
    stats[0] = stats[1] = stats[2] = 0;
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetAPIRestriction(nvmlDevice_t device, unsigned int api, unsigned int *restricted) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(restricted && api < 2, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(sim_uint(&call, restricted, "restricted.%u", api));
}

SIM_API nvmlReturn_t nvmlDeviceGetPlatformInfo(nvmlDevice_t device, nvmlPlatformInfo_v2_t *info) {
    SIM_BEGIN_DEVICE(device);
    unsigned int module = 0, peer = 0;
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(info->version == NVML_STRUCT_VERSION(nvmlPlatformInfo_v2_t, 2), NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    result = sim_first(sim_uint(&call, &module, "module_id"), sim_uint(&call, &peer, "platform.peer_type"));
    if (result == NVML_SUCCESS) {
        unsigned int version = info->version;
        memset(info, 0, sizeof *info);
        info->version = version;
        info->moduleId = (char)module;
        info->peerType = (char)peer;
    }
    SIM_END(result);
}

/* nothing is attached to a simulated GPU that would make these lists non-empty */
#define EMPTY_LIST(name)                                                              \
    SIM_API nvmlReturn_t name(nvmlDevice_t device, unsigned int *count, void *buffer) { \
        (void)buffer;                                                                 \
        SIM_BEGIN_DEVICE(device);                                                     \
        SIM_REQUIRE(count, NVML_ERROR_INVALID_ARGUMENT);                              \
        *count = 0;                                                                   \
        SIM_END(NVML_SUCCESS);                                                        \
    }
EMPTY_LIST(nvmlDeviceGetEncoderSessions)
EMPTY_LIST(nvmlDeviceGetFBCSessions)
EMPTY_LIST(nvmlDeviceGetAccountingPids)
