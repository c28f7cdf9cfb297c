/* NVML of a host whose GPUs are in the environment: STUB_GPU_0="9 0 0 GPU-aa NVIDIA H200" is the
   compute capability, whether it is divided, the UUID and the name of the first one. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct { int major, minor; unsigned divided; char uuid[96], name[96]; } Gpu;

static int read_gpu(unsigned index, Gpu *gpu) {
    char variable[32];
    snprintf(variable, sizeof variable, "STUB_GPU_%u", index);
    const char *text = getenv(variable);
    *gpu = (Gpu){0};
    return text && sscanf(text, "%d %d %u %95s %95[^\n]", &gpu->major, &gpu->minor, &gpu->divided,
                          gpu->uuid, gpu->name) >= 4;
}

int nvmlInit_v2(void) { return getenv("STUB_NO_DRIVER") ? 9 : 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) {
    Gpu gpu;
    for (*count = 0; read_gpu(*count, &gpu); ++*count) {}
    return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, uintptr_t *handle) {
    *handle = index + 1;
    return 0;
}
int nvmlDeviceGetName(uintptr_t handle, char *name, unsigned size) {
    Gpu gpu;
    read_gpu(handle - 1, &gpu);
    return snprintf(name, size, "%s", gpu.name) < 0;
}
int nvmlDeviceGetUUID(uintptr_t handle, char *uuid, unsigned size) {
    Gpu gpu;
    read_gpu(handle - 1, &gpu);
    return snprintf(uuid, size, "%s", gpu.uuid) < 0;
}
int nvmlDeviceGetCudaComputeCapability(uintptr_t handle, int *major, int *minor) {
    Gpu gpu;
    read_gpu(handle - 1, &gpu);
    *major = gpu.major, *minor = gpu.minor;
    return 0;
}
int nvmlDeviceGetMigMode(uintptr_t handle, unsigned *now, unsigned *pending) {
    Gpu gpu;
    read_gpu(handle - 1, &gpu);
    *now = *pending = gpu.divided;
    return gpu.major < 8 ? 3 : 0;
}
