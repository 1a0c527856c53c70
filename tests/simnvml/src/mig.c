#include "sim.h"
nvmlReturn_t sim_mig_memory(const sim_call *call, nvml_ull *bytes) { (void)call; *bytes=0; return NVML_ERROR_NOT_SUPPORTED; }
nvmlReturn_t sim_mig_uuid(const sim_call *call, char *out, size_t size) { (void)call;(void)out;(void)size; return NVML_ERROR_NOT_SUPPORTED; }
nvmlReturn_t sim_mig_name(const sim_call *call, char *out, size_t size) { (void)call;(void)out;(void)size; return NVML_ERROR_NOT_SUPPORTED; }
