/* SPDX-License-Identifier: Apache-2.0
 *
 * NVLink, the NVSwitch fabric, and how the GPUs see each other.
 *
 * nvlink.links = how many; nvlink.L.state = 0 takes one link down; nvlink.L.remote = "gpu M" or "switch D B D".
 */
#include <stdio.h>
#include <string.h>

#include "sim.h"

enum { REMOTE_GPU = 0, REMOTE_SWITCH = 2, REMOTE_UNKNOWN = 0xff };

typedef struct {
    unsigned int type, gpu, domain, bus, device;
} remote;

/* NOT_SUPPORTED without NVLink, INVALID_ARGUMENT beyond the last link */
static nvmlReturn_t check_link(const sim_call *call, unsigned int link) {
    unsigned int links = 0;
    nvmlReturn_t result = sim_uint(call, &links, "nvlink.links");
    if (result != NVML_SUCCESS || links == 0) return result != NVML_SUCCESS ? result : NVML_ERROR_NOT_SUPPORTED;
    if (link >= SIM_MAX_LINKS) return NVML_ERROR_INVALID_ARGUMENT;
    return link < links ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

/* a value of one link, else of every link */
static nvmlReturn_t link_uint(const sim_call *call, unsigned int link, const char *key, unsigned int *out) {
    if (sim_raw(call, "nvlink.%u.%s", link, key)) return sim_uint(call, out, "nvlink.%u.%s", link, key);
    return sim_uint(call, out, "nvlink.%s", key);
}

static bool link_up(const sim_call *call, unsigned int link) {
    unsigned int state = 0;
    return check_link(call, link) == NVML_SUCCESS && link_uint(call, link, "state", &state) == NVML_SUCCESS && state;
}

static bool read_remote(const sim_call *call, unsigned int link, remote *out) {
    const char *text = sim_raw(call, "nvlink.%u.remote", link);
    *out = (remote){REMOTE_UNKNOWN, 0, 0, 0, 0};
    if (!text) return false;
    if (sscanf(text, "gpu %u", &out->gpu) == 1) {
        sim_call peer = *call;
        peer.gpu = out->gpu;
        out->type = REMOTE_GPU;
        out->domain = (unsigned int)sim_or(&peer, 0, "pci.domain");
        out->bus = (unsigned int)sim_or(&peer, 0, "pci.bus");
        out->device = (unsigned int)sim_or(&peer, 0, "pci.device");
        return true;
    }
    if (sscanf(text, "switch %x %x %x", &out->domain, &out->bus, &out->device) == 3) {
        out->type = REMOTE_SWITCH;
        return true;
    }
    return false;
}

/* entry of every (device, link, ...) function */
#define SIM_BEGIN_LINK(device, link)        \
    SIM_BEGIN_DEVICE(device);               \
    result = check_link(&call, link);       \
    SIM_REQUIRE(result == NVML_SUCCESS, result)

SIM_API nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link, unsigned int *active) {
    SIM_BEGIN_LINK(device, link);
    SIM_REQUIRE(active, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(link_uint(&call, link, "state", active));
}

SIM_API nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, unsigned int link, unsigned int *version) {
    SIM_BEGIN_LINK(device, link);
    SIM_REQUIRE(version, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(sim_uint(&call, version, "nvlink.version"));
}

SIM_API nvmlReturn_t nvmlDeviceGetNvLinkCapability(nvmlDevice_t device, unsigned int link, unsigned int capability,
                                                   unsigned int *out) {
    SIM_BEGIN_LINK(device, link);
    SIM_REQUIRE(out && capability < 6, NVML_ERROR_INVALID_ARGUMENT);
    *out = capability != 4; /* everything but an SLI bridge */
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetNvLinkErrorCounter(nvmlDevice_t device, unsigned int link, unsigned int counter,
                                                     nvml_ull *count) {
    static const char *const names[] = {"replay", "recovery", "crc_flit", "crc_data", "ecc_data"};
    SIM_BEGIN_LINK(device, link);
    SIM_REQUIRE(count && counter < 5, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(link_up(&call, link), NVML_ERROR_NOT_SUPPORTED);
    *count = sim_or(&call, 0, "nvlink.%u.error.%s", link, names[counter]);
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned int link, unsigned int *type) {
    SIM_BEGIN_LINK(device, link);
    remote r;
    SIM_REQUIRE(type, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(link_up(&call, link), NVML_ERROR_NOT_SUPPORTED);
    read_remote(&call, link, &r);
    *type = r.type;
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int link, nvmlPciInfo_t *pci) {
    SIM_BEGIN_LINK(device, link);
    remote r;
    SIM_REQUIRE(pci, NVML_ERROR_INVALID_ARGUMENT);
    SIM_REQUIRE(link_up(&call, link) && read_remote(&call, link, &r), NVML_ERROR_NOT_SUPPORTED);
    memset(pci, 0, sizeof *pci);
    snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.0", r.domain, r.bus, r.device);
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", r.domain & 0xffff, r.bus & 0xff,
             r.device & 0x1f);
    pci->domain = r.domain;
    pci->bus = r.bus;
    pci->device = r.device;
    SIM_END(NVML_SUCCESS);
}

/* ---- fabric: which partition of the NVSwitch fabric the GPU joined ---- */

static nvmlReturn_t read_fabric(const sim_call *call, nvmlGpuFabricInfo_v3_t *out) {
    unsigned int state = 0, status = 0, clique = 0, mask = 0, summary = 0;
    char uuid[64];
    memset(out, 0, sizeof *out);
    nvmlReturn_t result = sim_uint(call, &state, "fabric.state");
    if (result != NVML_SUCCESS) return result;
    status = (unsigned int)sim_or(call, 0, "fabric.status");
    clique = (unsigned int)sim_or(call, 0, "fabric.clique");
    mask = (unsigned int)sim_or(call, 0, "fabric.health_mask");
    summary = (unsigned int)sim_or(call, 0, "fabric.health_summary");
    out->state = state;
    out->status = status;
    out->cliqueId = clique;
    out->healthMask = mask;
    out->healthSummary = (uint8_t)summary;
    if (sim_text(call, uuid, sizeof uuid, "fabric.cluster_uuid") == NVML_SUCCESS) {
        unsigned int at = 0, byte;
        for (const char *c = uuid; *c && at < sizeof out->clusterUuid; c++) {
            if (*c == '-') continue;
            if (sscanf(c, "%2x", &byte) != 1) return NVML_ERROR_UNKNOWN;
            out->clusterUuid[at++] = (uint8_t)byte;
            if (*++c == '\0') break;
        }
    }
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, nvmlGpuFabricInfo_t *info) {
    SIM_BEGIN_DEVICE(device);
    nvmlGpuFabricInfo_v3_t found;
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    result = read_fabric(&call, &found);
    if (result == NVML_SUCCESS) {
        memcpy(info->clusterUuid, found.clusterUuid, sizeof info->clusterUuid);
        info->status = found.status;
        info->cliqueId = found.cliqueId;
        info->state = found.state;
    }
    SIM_END(result);
}

SIM_API nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfo_v3_t *info) {
    SIM_BEGIN_DEVICE(device);
    nvmlGpuFabricInfo_v3_t found;
    SIM_REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
    unsigned int version = info->version;
    bool second = version == NVML_STRUCT_VERSION(nvmlGpuFabricInfo_v2_t, 2);
    SIM_REQUIRE(second || version == NVML_STRUCT_VERSION(nvmlGpuFabricInfo_v3_t, 3),
                NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    result = read_fabric(&call, &found);
    if (result == NVML_SUCCESS) {
        found.version = version;
        memcpy(info, &found, second ? sizeof(nvmlGpuFabricInfo_v2_t) : sizeof found);
    }
    SIM_END(result);
}

/* ---- GPU to GPU ---- */

enum { TOPOLOGY_SINGLE = 10, TOPOLOGY_MULTIPLE = 20, TOPOLOGY_HOSTBRIDGE = 30, TOPOLOGY_NODE = 40, TOPOLOGY_SYSTEM = 50 };

/* explicit gpu.N.topology.M, else from PCIe switch, root complex and NUMA node */
static unsigned int ancestor(const sim_call *call, unsigned int other) {
    sim_call peer = *call;
    peer.gpu = other;
    nvml_ull none = ~0ull;
    nvml_ull said = sim_or(call, none, "topology.%u", other);
    if (said != none) return (unsigned int)said;
    nvml_ull mine = sim_or(call, none, "pcie.switch");
    if (mine != none && mine == sim_or(&peer, none, "pcie.switch")) return TOPOLOGY_MULTIPLE;
    mine = sim_or(call, none, "pcie.root");
    if (mine != none && mine == sim_or(&peer, none, "pcie.root")) return TOPOLOGY_HOSTBRIDGE;
    mine = sim_or(call, none, "numa_node");
    return mine == sim_or(&peer, none, "numa_node") ? TOPOLOGY_NODE : TOPOLOGY_SYSTEM;
}

SIM_API nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t device, nvmlDevice_t other, unsigned int *level) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(level && sim_handle_valid(other), NVML_ERROR_INVALID_ARGUMENT);
    *level = other->gpu == call.gpu ? 0 : ancestor(&call, other->gpu);
    SIM_END(NVML_SUCCESS);
}

static nvmlReturn_t give_devices(unsigned int *count, nvmlDevice_t *devices, const bool wanted[SIM_MAX_GPUS]) {
    unsigned int n = 0;
    for (unsigned int gpu = 0; gpu < SIM_MAX_GPUS; gpu++) n += wanted[gpu];
    nvmlReturn_t result = sim_list_room(count, n, devices);
    n = 0;
    for (unsigned int gpu = 0; result == NVML_SUCCESS && gpu < SIM_MAX_GPUS; gpu++) {
        if (wanted[gpu]) devices[n++] = sim_handle_device(gpu);
    }
    return result;
}

SIM_API nvmlReturn_t nvmlDeviceGetTopologyNearestGpus(nvmlDevice_t device, unsigned int level, unsigned int *count,
                                                      nvmlDevice_t *devices) {
    SIM_BEGIN_DEVICE(device);
    bool wanted[SIM_MAX_GPUS] = {false};
    SIM_REQUIRE(count, NVML_ERROR_INVALID_ARGUMENT);
    for (unsigned int gpu = 0; gpu < sim_gpu_count(call.conf); gpu++)
        wanted[gpu] = gpu != call.gpu && ancestor(&call, gpu) == level;
    result = give_devices(count, devices, wanted);
    SIM_END(devices ? result : NVML_SUCCESS); /* the first call only asks for the count */
}

SIM_API nvmlReturn_t nvmlSystemGetTopologyGpuSet(unsigned int cpu, unsigned int *count, nvmlDevice_t *devices) {
    SIM_BEGIN();
    bool wanted[SIM_MAX_GPUS] = {false};
    SIM_REQUIRE(count, NVML_ERROR_INVALID_ARGUMENT);
    for (call.gpu = 0; call.gpu < sim_gpu_count(call.conf); call.gpu++) {
        const char *text = sim_raw(&call, "cpu_affinity");
        unsigned int from, to;
        int used;
        while (text && sscanf(text, "%u%n", &from, &used) == 1) {
            text += used;
            to = from;
            if (sscanf(text, "-%u%n", &to, &used) == 1) text += used;
            wanted[call.gpu] |= cpu >= from && cpu <= to;
            text += *text == ',';
        }
    }
    result = give_devices(count, devices, wanted);
    SIM_END(devices ? result : NVML_SUCCESS);
}

enum { P2P_OK = 0, P2P_NOT_SUPPORTED = 5, P2P_INDEX_NVLINK = 2 };

static bool linked(const sim_call *call, unsigned int other) {
    for (unsigned int link = 0; link < SIM_MAX_LINKS; link++) {
        remote r;
        if (!link_up(call, link) || !read_remote(call, link, &r)) continue;
        if (r.type == REMOTE_SWITCH || r.gpu == other) return true;
    }
    return false;
}

SIM_API nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t device, nvmlDevice_t other, unsigned int index,
                                            unsigned int *status) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(status && sim_handle_valid(other) && index < 6, NVML_ERROR_INVALID_ARGUMENT);
    bool nvlink = linked(&call, other->gpu);
    bool pcie = sim_or(&call, 0, "p2p.pcie") != 0;
    *status = nvlink || (pcie && index != P2P_INDEX_NVLINK) ? P2P_OK : P2P_NOT_SUPPORTED;
    SIM_END(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceOnSameBoard(nvmlDevice_t device, nvmlDevice_t other, int *same) {
    SIM_BEGIN_DEVICE(device);
    SIM_REQUIRE(same && sim_handle_valid(other), NVML_ERROR_INVALID_ARGUMENT);
    *same = other->gpu == call.gpu;
    SIM_END(NVML_SUCCESS);
}
