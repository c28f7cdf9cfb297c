/* A driver that launches nothing and records everything: what tests open in place of
 * libcuda.so.1. With -DOLD_DRIVER it lacks what came with CUDA 12.0.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { MOST_RECORDS = 64, MOST_PARAMS = 32, MOST_ATTRIBUTES = 4, MOST_STACK = 16 };

typedef struct {
    int id;
    char padding[4];
    unsigned char value[64];
} Attribute;

typedef struct {
    unsigned int grid[3];
    unsigned int block[3];
    unsigned int shared;
    void *stream;
    Attribute *attributes;
    unsigned int attribute_count;
} Config;

typedef struct {
    uint64_t kernel;
    uint64_t stream;
    unsigned int grid[3];
    unsigned int block[3];
    unsigned int shared;
    int device;
    unsigned int attribute_count;
    Attribute attributes[MOST_ATTRIBUTES];
    uint64_t params[MOST_PARAMS];
} Record;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Record records[MOST_RECORDS];
static uint64_t launches;
static int sizes[MOST_PARAMS];
static int size_count;
static char history[1 << 16];
static char failing[64];
static int failing_code;
static int device_count = 1;
static int optin_shared = 227 * 1024;
static int static_shared;
static __thread int stack[MOST_STACK];
static __thread int depth;

/* What tests call. */

void stub_reset(void) {
    memset(records, 0, sizeof records);
    launches = 0;
    size_count = 0;
    history[0] = 0;
    failing[0] = 0;
    failing_code = 0;
    device_count = 1;
    optin_shared = 227 * 1024;
    static_shared = 0;
    depth = 0;
}

void stub_set_sizes(const int *given, int count) {
    memcpy(sizes, given, sizeof(int) * (size_t)count);
    size_count = count;
}

void stub_set_devices(int count, int optin, int statically) {
    device_count = count;
    optin_shared = optin;
    static_shared = statically;
}

void stub_set_current(int device) {
    depth = device < 0 ? 0 : 1;
    stack[0] = device;
}

int stub_current(void) { return depth == 0 ? -1 : stack[depth - 1]; }

void stub_fail(const char *function, int code) {
    snprintf(failing, sizeof failing, "%s", function);
    failing_code = code;
}

uint64_t stub_launches(void) { return launches; }

const Record *stub_record(int index) { return &records[index]; }

const char *stub_history(void) { return history; }

/* What a driver has. */

static int called(const char *function) {
    int code = 0;
    pthread_mutex_lock(&lock);
    size_t used = strlen(history);
    snprintf(history + used, sizeof history - used, "%s ", function);
    if (strcmp(function, failing) == 0) code = failing_code;
    pthread_mutex_unlock(&lock);
    return code;
}

int cuInit(unsigned int flags) {
    (void)flags;
    return called("cuInit");
}

int cuGetErrorName(int code, const char **name) {
    *name = code == 1     ? "CUDA_ERROR_INVALID_VALUE"
            : code == 201 ? "CUDA_ERROR_INVALID_CONTEXT"
            : code == 209 ? "CUDA_ERROR_NO_BINARY_FOR_GPU"
            : code == 500 ? "CUDA_ERROR_NOT_FOUND"
            : code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS"
            : code == 701 ? "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"
                          : NULL;
    return *name == NULL;
}

int cuDeviceGetCount(int *count) {
    *count = device_count;
    return called("cuDeviceGetCount");
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    *value = attribute == 97 ? optin_shared : 0;
    return called("cuDeviceGetAttribute");
}

int cuCtxGetDevice(int *device) {
    int code = called("cuCtxGetDevice");
    if (code != 0) return code;
    if (depth == 0) return 201;
    *device = stack[depth - 1];
    return 0;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = (void *)(intptr_t)(0x1000 + device);
    return called("cuDevicePrimaryCtxRetain");
}

int cuCtxPushCurrent_v2(void *context) {
    int code = called("cuCtxPushCurrent");
    if (code != 0) return code;
    stack[depth++] = (int)((intptr_t)context - 0x1000);
    return 0;
}

int cuCtxPopCurrent_v2(void **context) {
    depth--;
    *context = NULL;
    return called("cuCtxPopCurrent");
}

int cuThreadExchangeStreamCaptureMode(int *mode) {
    static int held;
    int given = *mode;
    *mode = held;
    held = given;
    return called(given == 2 ? "relaxed" : "as-it-was");
}

#ifndef OLD_DRIVER
int cuLibraryLoadData(void **library, const void *image, void *a, void *b, unsigned int c, void *d,
                      void *e, unsigned int f) {
    (void)a, (void)b, (void)c, (void)d, (void)e, (void)f;
    *library = (void *)0x11b;
    int code = called("cuLibraryLoadData");
    return code != 0 ? code : ((const char *)image)[63] == 0 ? 0 : 200;
}

int cuLibraryUnload(void *library) {
    (void)library;
    return called("cuLibraryUnload");
}

int cuLibraryGetKernel(void **kernel, void *library, const char *name) {
    (void)library;
    *kernel = (void *)0xbeef;
    int code = called("cuLibraryGetKernel");
    return code != 0 ? code : strcmp(name, "missing") == 0 ? 500 : 0;
}

int cuKernelGetAttribute(int *value, int attribute, void *kernel, int device) {
    (void)kernel, (void)device;
    *value = attribute == 1 ? static_shared : 0;
    return called("cuKernelGetAttribute");
}

int cuKernelSetAttribute(int attribute, int value, void *kernel, int device) {
    (void)kernel;
    char text[64];
    snprintf(text, sizeof text, "set(%d,%d,%d)", attribute, value, device);
    int code = called("cuKernelSetAttribute");
    return code != 0 ? code : called(text);
}

int cuKernelSetCacheConfig(void *kernel, int config, int device) {
    (void)kernel, (void)config, (void)device;
    return called("cuKernelSetCacheConfig");
}

int cuLaunchKernelEx(const Config *config, void *kernel, void **params, void **extra) {
    (void)extra;
    pthread_mutex_lock(&lock);
    if (strcmp("cuLaunchKernelEx", failing) == 0) {
        pthread_mutex_unlock(&lock);
        return failing_code;
    }
    Record *record = &records[launches % MOST_RECORDS];
    launches++;
    memset(record, 0, sizeof *record);
    record->kernel = (uint64_t)(uintptr_t)kernel;
    record->stream = (uint64_t)(uintptr_t)config->stream;
    memcpy(record->grid, config->grid, sizeof record->grid);
    memcpy(record->block, config->block, sizeof record->block);
    record->shared = config->shared;
    record->device = stub_current();
    record->attribute_count = config->attribute_count;
    for (unsigned int i = 0; i < config->attribute_count && i < MOST_ATTRIBUTES; i++)
        record->attributes[i] = config->attributes[i];
    for (int i = 0; i < size_count; i++)
        memcpy(&record->params[i], params[i], (size_t)sizes[i]);
    pthread_mutex_unlock(&lock);
    return 0;
}
#endif
