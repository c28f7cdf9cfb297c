/* A recorded launch, and the look-up of calls by signature: `recorded.py` and `calls.py` in C.
 *
 * Both give equal results and raise equal errors; tests/launch holds them to that. One binary
 * serves CPython 3.11 and later (the limited API). It is linked with neither PyTorch nor CUDA:
 * tensors are read through the table of functions that torch.Tensor carries (DLPack's C exchange
 * API), and the driver is opened at the first launch.
 *
 * All of it runs under the GIL, but for the launch itself.
 */
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030b0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    INTERFACE = 3,  /* native.py has the same number */
    MOST_ARGS = 255,
    MOST_PARAMS = 1024,
    MOST_ALLOCATIONS = 64,
    MOST_THREADS = 1024,
    MOST_COUNTERS = 65536,
    MOST_ENTRIES = 1 << 24,
    MOST_DEVICES = 64,
    LOCAL_WORDS = 256, /* of a signature, before it is put on the heap */
};

static const long long MOST_UNSIGNED = 2147483647;

/* -- DLPack 1.x, as its specification has it: https://dmlc.github.io/dlpack/latest/c_api.html -- */

enum { DLPACK_MAJOR = 1, DLPACK_CUDA = 2 };

typedef struct {
    uint32_t major;
    uint32_t minor;
} Version;

typedef struct {
    int32_t type;
    int32_t index;
} Device;

typedef struct {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
} DataType;

typedef struct {
    void *data;
    Device device;
    int32_t ndim;
    DataType dtype;
    int64_t *sizes;
    int64_t *strides;
    uint64_t byte_offset;
} Tensor;

typedef struct ExchangeHeader {
    Version version;
    struct ExchangeHeader *older;
} ExchangeHeader;

typedef struct {
    ExchangeHeader header;
    void (*allocate)(void);
    void (*export_tensor)(void);
    void (*import_tensor)(void);
    int (*read_tensor)(void *object, Tensor *tensor);
    int (*current_stream)(int32_t device_type, int32_t device, void **stream);
} Exchange;

/* -- The driver, as cuda.h of 12.0 has it -- */

enum { CUDA_NO_CONTEXT = 201 };

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
    void *library;
    int (*init)(unsigned int flags);
    int (*error_name)(int code, const char **name);
    int (*current_device)(int *device);
    int (*retain_context)(void **context, int device);
    int (*push_context)(void *context);
    int (*pop_context)(void **context);
    int (*launch)(const Config *config, void *kernel, void **params, void **extra);
    void *contexts[MOST_DEVICES];
} Driver;

static Driver driver; /* of the process; written under the GIL, and once, but for tests */

/* -- What the module holds -- */

typedef struct {
    PyTypeObject *recorded;
    PyTypeObject *calls;
    PyTypeObject *tensor;
    PyTypeObject *parameter;
    PyObject *plain_dispatch; /* the __torch_dispatch__ of tensors that have none of their own */
    PyObject *empty_strided;
    PyObject *quick_empty; /* a dict: what makes a tensor on the current device of a type */
    PyObject *failure;
    PyObject *launch_error;
    PyObject *forward_ad; /* the names of torch.autograd.forward_ad */
    PyObject *level_name; /* that of the level of forward gradients there */
    PyObject *no_level;   /* what it is while none are wanted */
    PyObject *has_tangent;
    PyObject *capsule;
    const Exchange *exchange;
    getter requires_grad; /* of torch.Tensor, without the look-up of its name */
    void *requires_grad_closure;
} State;

/* Function pointers are kept in `void *` by PyType_Slot and dlsym; ISO C has no such conversion. */
#define SLOT(function) (__extension__(void *)(function))

static bool raise_failure(
    const State *state, const Driver *asked, int code, const char *format, int device
) {
    const char *name = NULL;
    char step[64];
    PyOS_snprintf(step, sizeof step, format, device);
    if (asked->error_name(code, &name) != 0 || name == NULL) name = "";
    PyObject *error = PyObject_CallFunction(state->failure, "sis", step, code, name);
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    return false;
}

static bool find_function(const State *state, void *library, const char *name, void *function) {
    void *found = dlsym(library, name);
    if (found == NULL) {
        PyErr_Format(
            state->launch_error,
            "driver too old: it has no %s; update it to one of CUDA 12.0 or later", name
        );
        return false;
    }
    memcpy(function, &found, sizeof found);
    return true;
}

/* A driver that cannot be opened leaves the one before it as it was. */
static bool open_driver(const State *state, const char *path) {
    Driver opened = {.library = dlopen(path, RTLD_NOW | RTLD_LOCAL)};
    if (opened.library == NULL) {
        PyErr_Format(
            state->launch_error, "no NVIDIA driver: %s; install one, or use a CPU", dlerror()
        );
        return false;
    }
    if (!find_function(state, opened.library, "cuInit", &opened.init) ||
        !find_function(state, opened.library, "cuGetErrorName", &opened.error_name) ||
        !find_function(state, opened.library, "cuCtxGetDevice", &opened.current_device) ||
        !find_function(state, opened.library, "cuDevicePrimaryCtxRetain", &opened.retain_context) ||
        !find_function(state, opened.library, "cuCtxPushCurrent_v2", &opened.push_context) ||
        !find_function(state, opened.library, "cuCtxPopCurrent_v2", &opened.pop_context) ||
        !find_function(state, opened.library, "cuLaunchKernelEx", &opened.launch))
        return false;
    int code = opened.init(0);
    if (code != 0) return raise_failure(state, &opened, code, "the driver cannot be started", 0);
    driver = opened;
    return true;
}

/* -- Signatures -- */

typedef struct {
    uint64_t *words;
    size_t used;
    size_t capacity;
    uint64_t local[LOCAL_WORDS];
} Key;

typedef enum { KEY_MADE, KEY_NONE, KEY_FAILED } KeyStatus;

static const uint64_t ABSENT = UINT64_MAX;

static void key_begin(Key *key) {
    key->words = key->local;
    key->used = 0;
    key->capacity = LOCAL_WORDS;
}

static void key_end(Key *key) {
    if (key->words != key->local) PyMem_Free(key->words);
}

/* Return the place of the next words, or NULL with MemoryError. */
static uint64_t *key_extend(Key *key, size_t count) {
    if (count > key->capacity - key->used) {
        size_t capacity = 2 * (key->used + count);
        uint64_t *words = PyMem_Malloc(capacity * sizeof *words);
        if (words == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        memcpy(words, key->words, key->used * sizeof *words);
        key_end(key);
        key->words = words;
        key->capacity = capacity;
    }
    uint64_t *place = key->words + key->used;
    key->used += count;
    return place;
}

static KeyStatus key_word(Key *key, uint64_t word) {
    uint64_t *place = key_extend(key, 1);
    if (place == NULL) return KEY_FAILED;
    *place = word;
    return KEY_MADE;
}

/* Whether an object is a tensor with memory of its own; subclasses that wrap others have none. */
static bool is_plain_tensor(const State *state, PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    if (type == state->tensor || type == state->parameter) return true;
    if (!PyType_IsSubtype(type, state->tensor)) return false;
    PyObject *dispatch = PyObject_GetAttrString((PyObject *)type, "__torch_dispatch__");
    if (dispatch == NULL) PyErr_Clear();
    Py_XDECREF(dispatch);
    return dispatch == state->plain_dispatch;
}

enum { NARROW = 1, INDEXED = 2 };

/* A tensor is a word of its dtype, device type, alignment and rank, and one of each size and stride
 * together where both are below 2^32, as they nearly always are: half as much to hash. */
static KeyStatus key_tensor(const State *state, Key *key, PyObject *object, uintptr_t *pointer) {
    Tensor tensor;
    if (!is_plain_tensor(state, object)) return KEY_NONE;
    if (state->exchange->read_tensor(object, &tensor) != 0) {
        PyErr_Clear();
        return KEY_NONE;
    }
    *pointer = (uintptr_t)tensor.data;
    if (tensor.data != NULL) *pointer += (uintptr_t)tensor.byte_offset;
    if (tensor.ndim < 0 || tensor.ndim >= UINT16_MAX) return KEY_NONE;
    size_t rank = (size_t)tensor.ndim;
    uint64_t bits = 0;
    for (size_t i = 0; i < rank; i++)
        bits |= (uint64_t)tensor.sizes[i] | (uint64_t)tensor.strides[i];
    uint64_t flags = bits <= UINT32_MAX ? NARROW : 0;
    if (tensor.device.index != 0) flags |= INDEXED;
    size_t count = 1 + (flags & NARROW ? rank : 2 * rank) + (flags & INDEXED ? 1 : 0);
    uint64_t *place = key_extend(key, count);
    if (place == NULL) return KEY_FAILED;
    *place++ = (uint64_t)tensor.dtype.code | (uint64_t)tensor.dtype.bits << 8 |
               (uint64_t)tensor.dtype.lanes << 16 | ((uint64_t)tensor.device.type & 0xff) << 32 |
               (uint64_t)(*pointer & 15) << 40 | flags << 44 | (uint64_t)rank << 48;
    if (flags & INDEXED) *place++ = (uint64_t)tensor.device.index;
    if (flags & NARROW) {
        for (size_t i = 0; i < rank; i++)
            *place++ = (uint64_t)tensor.sizes[i] | (uint64_t)tensor.strides[i] << 32;
    } else {
        for (size_t i = 0; i < rank; i++) *place++ = (uint64_t)tensor.sizes[i];
        for (size_t i = 0; i < rank; i++) *place++ = (uint64_t)tensor.strides[i];
    }
    return KEY_MADE;
}

static bool whole_number(PyObject *object, uint64_t *word) {
    int overflow = 0;
    if (!PyLong_CheckExact(object)) return false;
    *word = (uint64_t)PyLong_AsLongLongAndOverflow(object, &overflow);
    return overflow == 0;
}

/* The bits of a float; a call may give a whole number for one, as PyTorch allows. Where its value
 * decides nothing but what the kernel gets, there is no word of it. */
static KeyStatus key_real(Key *key, PyObject *object, bool apart) {
    double value;
    uint64_t bits;
    if (PyFloat_CheckExact(object)) {
        value = PyFloat_AsDouble(object);
    } else if (PyLong_CheckExact(object)) {
        value = PyLong_AsDouble(object);
        if (value == -1.0 && PyErr_Occurred()) {
            PyErr_Clear();
            return KEY_NONE;
        }
    } else {
        return KEY_NONE;
    }
    memcpy(&bits, &value, sizeof bits);
    return apart ? key_word(key, bits) : KEY_MADE;
}

static KeyStatus key_bytes(Key *key, const char *text, Py_ssize_t length) {
    size_t count = ((size_t)length + 7) / 8;
    uint64_t *place = key_extend(key, 1 + count);
    if (place == NULL) return KEY_FAILED;
    *place++ = (uint64_t)length;
    if (count != 0) {
        place[count - 1] = 0;
        memcpy(place, text, (size_t)length);
    }
    return KEY_MADE;
}

static KeyStatus key_text(Key *key, PyObject *object) {
    Py_ssize_t length;
    if (!PyUnicode_CheckExact(object)) return KEY_NONE;
    const char *text = PyUnicode_AsUTF8AndSize(object, &length);
    if (text != NULL) return key_bytes(key, text, length);
    PyErr_Clear(); /* half of a surrogate pair; its bytes are in no other text */
    PyObject *bytes = PyUnicode_AsEncodedString(object, "utf-8", "surrogatepass");
    char *inside;
    KeyStatus status = KEY_FAILED;
    if (bytes != NULL && PyBytes_AsStringAndSize(bytes, &inside, &length) == 0)
        status = key_bytes(key, inside, length);
    Py_XDECREF(bytes);
    return status;
}

static KeyStatus key_numbers(Key *key, PyObject *object) {
    bool list = PyList_CheckExact(object);
    if (!list && !PyTuple_CheckExact(object)) return KEY_NONE;
    Py_ssize_t count = list ? PyList_Size(object) : PyTuple_Size(object);
    uint64_t *place = key_extend(key, 1 + (size_t)count);
    if (place == NULL) return KEY_FAILED;
    *place++ = (uint64_t)count;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = list ? PyList_GetItem(object, i) : PyTuple_GetItem(object, i);
        if (!whole_number(item, place++)) return KEY_NONE;
    }
    return KEY_MADE;
}

/* An argument that may be absent has a word before it, but where its first word says so. */
static KeyStatus key_argument(
    const State *state, Key *key, char kind, bool apart, PyObject *object, uintptr_t *pointer
) {
    bool optional = kind < 'a';
    if (optional) {
        if (Py_IsNone(object)) return key_word(key, ABSENT);
        kind = (char)(kind - 'A' + 'a');
    }
    if (kind == 't') return key_tensor(state, key, object, pointer);
    if (optional && (kind == 'i' || kind == 'f') && key_word(key, 0) != KEY_MADE) return KEY_FAILED;
    uint64_t word;
    switch (kind) {
    case 'i':
        return whole_number(object, &word) ? key_word(key, word) : KEY_NONE;
    case 'f':
        return key_real(key, object, apart);
    case 'b':
        return PyBool_Check(object) ? key_word(key, Py_IsTrue(object) ? 1 : 0) : KEY_NONE;
    case 's':
        return key_text(key, object);
    default:
        return key_numbers(key, object);
    }
}

static uint64_t mixed(uint64_t a, uint64_t b) {
#ifdef __SIZEOF_INT128__
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
#else
    uint64_t hash = (a ^ (b << 32 | b >> 32)) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 29;
#endif
}

static uint64_t key_hash(const Key *key, uint64_t seed) {
    const uint64_t *word = key->words, *end = word + key->used;
    uint64_t hash = seed ^ key->used;
    for (; end - word >= 2; word += 2)
        hash = mixed(word[0] ^ UINT64_C(0xa0761d6478bd642f), word[1] ^ hash);
    if (word != end) hash = mixed(word[0] ^ UINT64_C(0xe7037ed1a0b428db), hash);
    return mixed(hash ^ UINT64_C(0x8ebc6af09c88c6e3), UINT64_C(0x589965cc75374cc3));
}

/* -- Recorded: see recorded.py -- */

typedef enum { SCALAR, ARGUMENT, ALLOCATION, FLOAT, DOUBLE } Source;

typedef struct {
    Source source;
    Py_ssize_t place;
    uint64_t value; /* of a scalar; else how many bytes behind the pointer */
} Param;

typedef struct {
    PyObject *quick; /* makes it without PyTorch's reading of arguments, on the current device */
    PyObject *quick_args;
    PyObject *args; /* of torch.empty_strided */
    PyObject *names;
    int device; /* its index; -1 where any will do */
} Allocation;

enum { NO_RESULT = -2, ONE_RESULT = -1 };

typedef struct {
    PyObject ob_base;
    const State *state;
    void *kernel;
    unsigned int grid[3];
    unsigned int threads;
    unsigned int shared;
    int device;
    Param *params;
    Py_ssize_t param_count;
    Allocation *allocations;
    Py_ssize_t allocation_count;
    Py_ssize_t *results;
    Py_ssize_t result_count; /* of a tuple, ONE_RESULT or NO_RESULT */
    Attribute *attributes;
    Py_ssize_t attribute_count;
    PyObject *any; /* places of floats that may have any value */
} Recorded;

static const uintptr_t UNREAD = UINTPTR_MAX;

/* Read the pointer of a tensor, of whatever class, and the index of its device. */
static bool read_pointer(const State *state, PyObject *object, uintptr_t *pointer, int *device) {
    Tensor tensor;
    if (state->exchange->read_tensor(object, &tensor) != 0) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_RuntimeError, "a tensor cannot be read");
        return false;
    }
    *pointer = (uintptr_t)tensor.data;
    if (tensor.data != NULL) *pointer += (uintptr_t)tensor.byte_offset;
    *device = tensor.device.index;
    return true;
}

static bool argument_pointer(
    const State *state, PyObject *const *args, Py_ssize_t count, Py_ssize_t place,
    uintptr_t *pointer
) {
    if (place >= count) {
        PyErr_Format(
            PyExc_TypeError, "a launch takes argument %zd, and %zd were given", place, count
        );
        return false;
    }
    int device;
    if (PyObject_TypeCheck(args[place], state->tensor))
        return read_pointer(state, args[place], pointer, &device);
    PyObject *name = PyType_GetName(Py_TYPE(args[place]));
    if (name != NULL)
        PyErr_Format(PyExc_TypeError, "argument %zd is not a tensor but %U", place, name);
    Py_XDECREF(name);
    return false;
}

/* Make the context of a device ready to be pushed; NULL if it is the current one. */
static bool find_context(const State *state, int device, void **context) {
    int current = -1;
    *context = NULL;
    int code = driver.current_device(&current);
    if (code == 0 && current == device) return true;
    if (code == 0 || code == CUDA_NO_CONTEXT) {
        if (driver.contexts[device] == NULL) {
            code = driver.retain_context(&driver.contexts[device], device);
            if (code != 0) driver.contexts[device] = NULL;
        } else {
            code = 0;
        }
    }
    if (code != 0) return raise_failure(state, &driver, code, "device %d cannot be used", device);
    *context = driver.contexts[device];
    return true;
}

static bool launch(const Recorded *self, void **pointers) {
    const State *state = self->state;
    void *stream = NULL, *context = NULL;
    if (driver.library == NULL && !open_driver(state, "libcuda.so.1")) return false;
    if (self->device >= 0) {
        if (state->exchange->current_stream(DLPACK_CUDA, self->device, &stream) != 0) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_RuntimeError, "PyTorch has no current stream");
            return false;
        }
        if (!find_context(state, self->device, &context)) return false;
    }
    Config config = {
        .grid = {self->grid[0], self->grid[1], self->grid[2]},
        .block = {self->threads, 1, 1},
        .shared = self->shared,
        .stream = stream,
        .attributes = self->attributes,
        .attribute_count = (unsigned int)self->attribute_count,
    };
    int pushing = 0, code = 0;
    /* A launch waits where the queue of the stream is full; other threads go on. */
    Py_BEGIN_ALLOW_THREADS
    if (context != NULL) pushing = driver.push_context(context);
    if (pushing == 0) {
        code = driver.launch(&config, self->kernel, pointers, NULL);
        if (context != NULL) driver.pop_context(&context);
    }
    Py_END_ALLOW_THREADS
    if (pushing != 0)
        return raise_failure(state, &driver, pushing, "device %d cannot be used", self->device);
    return code == 0 || raise_failure(state, &driver, code, "a kernel cannot be launched", 0);
}

/* Read the float of an argument, rounded to single precision where the kernel takes that. */
static bool argument_number(
    PyObject *const *args, Py_ssize_t count, const Param *param, uint64_t *bits
) {
    if (param->place >= count) {
        PyErr_Format(
            PyExc_TypeError, "a launch takes argument %zd, and %zd were given", param->place, count
        );
        return false;
    }
    PyObject *object = args[param->place];
    if (!PyFloat_Check(object) && !PyLong_Check(object)) {
        PyObject *name = PyType_GetName(Py_TYPE(object));
        if (name != NULL)
            PyErr_Format(
                PyExc_TypeError, "argument %zd is not a number but %U", param->place, name
            );
        Py_XDECREF(name);
        return false;
    }
    double value = PyFloat_AsDouble(object);
    if (value == -1.0 && PyErr_Occurred()) return false;
    *bits = 0;
    if (param->source == FLOAT) {
        float rounded = (float)value;
        memcpy(bits, &rounded, sizeof rounded);
    } else {
        memcpy(bits, &value, sizeof value);
    }
    return true;
}

/* `known` are pointers that were read already, UNREAD where they were not; or NULL. */
static bool run_launch(
    const Recorded *self, PyObject *const *args, Py_ssize_t count, const uintptr_t *known,
    const uintptr_t *made
) {
    uint64_t values[MOST_PARAMS];
    void *pointers[MOST_PARAMS];
    for (Py_ssize_t i = 0; i < self->param_count; i++) {
        const Param *param = &self->params[i];
        values[i] = param->value;
        pointers[i] = &values[i];
        if (param->source == SCALAR) continue;
        if (param->source == FLOAT || param->source == DOUBLE) {
            if (!argument_number(args, count, param, &values[i])) return false;
            continue;
        }
        uintptr_t pointer = UNREAD;
        if (param->source == ALLOCATION) {
            pointer = made[param->place];
        } else {
            if (known != NULL && param->place < count) pointer = known[param->place];
            if (pointer == UNREAD &&
                !argument_pointer(self->state, args, count, param->place, &pointer))
                return false;
        }
        values[i] = pointer == 0 ? 0 : (uint64_t)pointer + param->value;
    }
    return launch(self, pointers);
}

static PyObject *make_results(const Recorded *self, PyObject *const *made) {
    if (self->result_count == NO_RESULT) Py_RETURN_NONE;
    if (self->result_count == ONE_RESULT) return Py_NewRef(made[self->results[0]]);
    PyObject *results = PyTuple_New(self->result_count);
    for (Py_ssize_t i = 0; results != NULL && i < self->result_count; i++)
        PyTuple_SetItem(results, i, Py_NewRef(made[self->results[i]]));
    return results;
}

/* Make a tensor, and read its pointer. */
static PyObject *allocate(const State *state, const Allocation *wanted, uintptr_t *pointer) {
    int device;
    PyObject *made;
    if (wanted->quick != NULL) {
        made = PyObject_Call(wanted->quick, wanted->quick_args, NULL);
        if (made == NULL) return NULL;
        if (!read_pointer(state, made, pointer, &device)) goto failed;
        if (wanted->device < 0 || device == wanted->device) return made;
        Py_DECREF(made); /* another device is the current one */
    }
    made = PyObject_Call(state->empty_strided, wanted->args, wanted->names);
    if (made == NULL || read_pointer(state, made, pointer, &device)) return made;
failed:
    Py_DECREF(made);
    return NULL;
}

static PyObject *run_recorded(
    const Recorded *self, PyObject *const *args, Py_ssize_t count, const uintptr_t *known
) {
    PyObject *made[MOST_ALLOCATIONS];
    uintptr_t pointers[MOST_ALLOCATIONS];
    PyObject *results = NULL;
    Py_ssize_t ready = 0;
    for (; ready < self->allocation_count; ready++) {
        made[ready] = allocate(self->state, &self->allocations[ready], &pointers[ready]);
        if (made[ready] == NULL) goto done;
    }
    bool launches = self->grid[0] != 0 && self->grid[1] != 0 && self->grid[2] != 0;
    if (!launches || run_launch(self, args, count, known, pointers))
        results = make_results(self, made);
done:
    while (ready > 0) Py_DECREF(made[--ready]);
    return results;
}

static PyObject *recorded_call(PyObject *object, PyObject *args, PyObject *names) {
    PyObject *few[16], **items = few, *results = NULL;
    Py_ssize_t count = PyTuple_Size(args);
    if (names != NULL && PyDict_Size(names) != 0) {
        PyErr_SetString(PyExc_TypeError, "a launch takes no keyword arguments");
        return NULL;
    }
    if (count > (Py_ssize_t)(sizeof few / sizeof *few)) {
        items = PyMem_Malloc((size_t)count * sizeof *items);
        if (items == NULL) return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < count; i++) items[i] = PyTuple_GetItem(args, i);
    results = run_recorded((Recorded *)object, items, count, NULL);
    if (items != few) PyMem_Free(items);
    return results;
}

/* Read a whole number of a range; raises ValueError with the text for one outside of it. */
static bool ranged(
    PyObject *object, long long least, long long most, const char *text, long long *value
) {
    int overflow = 0;
    *value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (*value == -1 && PyErr_Occurred()) return false;
    if (overflow == 0 && least <= *value && *value <= most) return true;
    PyErr_SetString(PyExc_ValueError, text);
    return false;
}

static bool read_scalar(PyObject *bytes, Param *param) {
    char *inside;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(bytes, &inside, &length) != 0) return false;
    if (length < 1 || length > 8) {
        PyErr_SetString(PyExc_ValueError, "a scalar must have 1 to 8 bytes");
        return false;
    }
    param->source = SCALAR;
    for (Py_ssize_t i = 0; i < length; i++)
        param->value |= (uint64_t)(unsigned char)inside[i] << (8 * i);
    return true;
}

static bool read_number(PyObject *type, PyObject *place, Param *param) {
    static const char *absent = "a parameter names an argument that is not there";
    long long source;
    const char *text = PyUnicode_AsUTF8AndSize(type, NULL);
    if (text == NULL) return false;
    if (strcmp(text, "fp32") != 0 && strcmp(text, "fp64") != 0) {
        PyErr_SetString(PyExc_ValueError, "a number must be fp32 or fp64");
        return false;
    }
    if (!ranged(place, 0, MOST_UNSIGNED, absent, &source)) return false;
    param->source = text[2] == '3' ? FLOAT : DOUBLE;
    param->place = (Py_ssize_t)source;
    return true;
}

static bool read_param(PyObject *object, Py_ssize_t allocations, Param *param) {
    static const char *absent = "a parameter names an allocation that is not there";
    long long source, delta;
    if (PyBytes_Check(object)) return read_scalar(object, param);
    if (!PyTuple_Check(object) || PyTuple_Size(object) != 2) {
        PyErr_SetString(PyExc_TypeError, "a parameter must be bytes, two numbers, or a type and one");
        return false;
    }
    if (PyUnicode_Check(PyTuple_GetItem(object, 0)))
        return read_number(PyTuple_GetItem(object, 0), PyTuple_GetItem(object, 1), param);
    if (!ranged(PyTuple_GetItem(object, 0), -allocations, MOST_UNSIGNED, absent, &source))
        return false;
    delta = PyLong_AsLongLong(PyTuple_GetItem(object, 1));
    if (delta == -1 && PyErr_Occurred()) return false;
    param->source = source < 0 ? ALLOCATION : ARGUMENT;
    param->place = (Py_ssize_t)(source < 0 ? -source - 1 : source);
    param->value = (uint64_t)delta;
    return true;
}

static bool read_params(Recorded *self, PyObject *params) {
    Py_ssize_t count = PyTuple_Size(params);
    if (count > MOST_PARAMS) {
        PyErr_Format(PyExc_ValueError, "params must be %d at most", MOST_PARAMS);
        return false;
    }
    self->params = PyMem_Calloc((size_t)count, sizeof *self->params);
    if (self->params == NULL) return PyErr_NoMemory() != NULL;
    self->param_count = count;
    for (Py_ssize_t i = 0; i < count; i++)
        if (!read_param(PyTuple_GetItem(params, i), self->allocation_count, &self->params[i]))
            return false;
    return true;
}

static bool read_allocation(const State *state, PyObject *object, Allocation *allocation) {
    PyObject *sizes, *strides, *dtype, *device;
    if (!PyArg_ParseTuple(
            object, "O!O!OO", &PyTuple_Type, &sizes, &PyTuple_Type, &strides, &dtype, &device
        ))
        return false;
    allocation->args = PyTuple_Pack(2, sizes, strides);
    allocation->names = Py_BuildValue("{sOsO}", "dtype", dtype, "device", device);
    allocation->quick_args = PyTuple_Pack(3, sizes, strides, dtype);
    PyObject *type = PyObject_GetAttrString(device, "type");
    PyObject *index = PyObject_GetAttrString(device, "index");
    if (type != NULL && index != NULL) {
        allocation->quick = PyDict_GetItemWithError(state->quick_empty, type);
        Py_XINCREF(allocation->quick);
        allocation->device = Py_IsNone(index) ? -1 : (int)PyLong_AsLong(index);
    }
    Py_XDECREF(type);
    Py_XDECREF(index);
    return !PyErr_Occurred();
}

static bool read_allocations(Recorded *self, PyObject *allocations) {
    Py_ssize_t count = PyTuple_Size(allocations);
    if (count > MOST_ALLOCATIONS) {
        PyErr_Format(PyExc_ValueError, "allocations must be %d at most", MOST_ALLOCATIONS);
        return false;
    }
    self->allocations = PyMem_Calloc((size_t)count, sizeof *self->allocations);
    if (self->allocations == NULL) return PyErr_NoMemory() != NULL;
    self->allocation_count = count;
    for (Py_ssize_t i = 0; i < count; i++)
        if (!read_allocation(self->state, PyTuple_GetItem(allocations, i), &self->allocations[i]))
            return false;
    return true;
}

static bool read_results(Recorded *self, PyObject *results) {
    static const char *absent = "a result names an allocation that is not there";
    self->result_count = NO_RESULT;
    if (Py_IsNone(results)) return true;
    bool several = PyTuple_Check(results);
    Py_ssize_t count = several ? PyTuple_Size(results) : 1;
    self->results = PyMem_Calloc((size_t)count, sizeof *self->results);
    if (self->results == NULL) return PyErr_NoMemory() != NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        long long place;
        PyObject *item = several ? PyTuple_GetItem(results, i) : results;
        if (!ranged(item, 0, self->allocation_count - 1, absent, &place)) return false;
        self->results[i] = (Py_ssize_t)place;
    }
    self->result_count = several ? count : ONE_RESULT;
    return true;
}

static bool read_attribute(PyObject *object, Attribute *attribute) {
    PyObject *number, *value;
    if (!PyArg_ParseTuple(object, "iO!", &attribute->id, &PyLong_Type, &value)) return false;
    number = PyObject_CallMethod(value, "to_bytes", "is", 64, "little");
    if (number == NULL) return false;
    char *inside = PyBytes_AsString(number);
    if (inside != NULL) memcpy(attribute->value, inside, sizeof attribute->value);
    Py_DECREF(number);
    return inside != NULL;
}

static bool read_attributes(Recorded *self, PyObject *attributes) {
    Py_ssize_t count = attributes == NULL ? 0 : PyTuple_Size(attributes);
    self->attributes = PyMem_Calloc((size_t)count, sizeof *self->attributes);
    if (self->attributes == NULL) return PyErr_NoMemory() != NULL;
    self->attribute_count = count;
    for (Py_ssize_t i = 0; i < count; i++)
        if (!read_attribute(PyTuple_GetItem(attributes, i), &self->attributes[i])) return false;
    return true;
}

static bool read_shape(Recorded *self, PyObject *grid, PyObject *threads, PyObject *shared) {
    static const char *wanted = "grid must be three numbers of 0 to 2147483647";
    long long value;
    if (PyTuple_Size(grid) != 3) {
        PyErr_SetString(PyExc_ValueError, wanted);
        return false;
    }
    for (Py_ssize_t i = 0; i < 3; i++) {
        if (!ranged(PyTuple_GetItem(grid, i), 0, MOST_UNSIGNED, wanted, &value)) return false;
        self->grid[i] = (unsigned int)value;
    }
    if (!ranged(threads, 1, MOST_THREADS, "threads must be 1 to 1024", &value)) return false;
    self->threads = (unsigned int)value;
    if (!ranged(shared, 0, MOST_UNSIGNED, "shared must be 0 to 2147483647", &value)) return false;
    self->shared = (unsigned int)value;
    return true;
}

static PyObject *recorded_new(PyTypeObject *type, PyObject *args, PyObject *names) {
    static char *keywords[] = {"kernel",      "grid",    "threads", "shared",     "params",
                               "allocations", "results", "device",  "attributes", "any",
                               NULL};
    unsigned long long kernel;
    PyObject *grid, *threads, *shared, *params, *allocations, *results, *device;
    PyObject *attributes = NULL, *any = NULL;
    long long index;
    if (!PyArg_ParseTupleAndKeywords(
            args, names, "KO!OOO!O!OO|O!O!", keywords, &kernel, &PyTuple_Type, &grid, &threads,
            &shared, &PyTuple_Type, &params, &PyTuple_Type, &allocations, &results, &device,
            &PyTuple_Type, &attributes, &PyTuple_Type, &any
        ))
        return NULL;
    const State *state = PyType_GetModuleState(type);
    if (state == NULL || state->exchange == NULL) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_RuntimeError, "call setup first");
        return NULL;
    }
    Recorded *self = (Recorded *)PyType_GenericAlloc(type, 0);
    if (self == NULL) return NULL;
    self->state = state;
    self->kernel = (void *)(uintptr_t)kernel;
    self->any = any == NULL ? PyTuple_New(0) : Py_NewRef(any);
    if (self->any == NULL || !read_shape(self, grid, threads, shared) ||
        !ranged(device, -1, MOST_DEVICES - 1, "device must be -1 to 63", &index) ||
        !read_allocations(self, allocations) || !read_params(self, params) ||
        !read_results(self, results) || !read_attributes(self, attributes)) {
        Py_DECREF(self);
        return NULL;
    }
    self->device = (int)index;
    return (PyObject *)self;
}

static int recorded_traverse(PyObject *object, visitproc visit, void *arg) {
    Recorded *self = (Recorded *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->any);
    for (Py_ssize_t i = 0; i < self->allocation_count; i++) {
        Py_VISIT(self->allocations[i].quick);
        Py_VISIT(self->allocations[i].quick_args);
        Py_VISIT(self->allocations[i].args);
        Py_VISIT(self->allocations[i].names);
    }
    return 0;
}

/* There is no tp_clear: sizes, dtypes and devices refer to nothing that could refer back. */
static void recorded_dealloc(PyObject *object) {
    Recorded *self = (Recorded *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    for (Py_ssize_t i = 0; i < self->allocation_count; i++) {
        Py_XDECREF(self->allocations[i].quick);
        Py_XDECREF(self->allocations[i].quick_args);
        Py_XDECREF(self->allocations[i].args);
        Py_XDECREF(self->allocations[i].names);
    }
    PyMem_Free(self->allocations);
    PyMem_Free(self->params);
    PyMem_Free(self->results);
    PyMem_Free(self->attributes);
    Py_XDECREF(self->any);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyObject *recorded_any(PyObject *object, void *unused) {
    (void)unused;
    return Py_NewRef(((Recorded *)object)->any);
}

static PyGetSetDef recorded_getset[] = {
    {"any", recorded_any, NULL, "Places of floats that may have any value.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot recorded_slots[] = {
    {Py_tp_doc, "One launch of a kernel, for calls of one signature; see launch/recorded.py."},
    {Py_tp_new, SLOT(recorded_new)},
    {Py_tp_call, SLOT(recorded_call)},
    {Py_tp_getset, recorded_getset},
    {Py_tp_traverse, SLOT(recorded_traverse)},
    {Py_tp_dealloc, SLOT(recorded_dealloc)},
    {0, NULL},
};

static PyType_Spec recorded_spec = {
    .name = "kernelpkg.launch._native.Recorded",
    .basicsize = sizeof(Recorded),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = recorded_slots,
};

/* -- Calls: see calls.py -- */

typedef struct Entry {
    struct Entry *next;  /* of its bucket */
    struct Entry *newer; /* of all */
    uint64_t hash;
    PyObject *launch;
    PyObject *captured; /* or NULL */
    size_t counter;
    size_t captured_counter;
    size_t used;
    uint64_t words[];
} Entry;

typedef struct {
    PyObject ob_base;
    const State *state;
    PyObject *resolve;
    PyObject *grad_enabled;
    PyObject *check_grad;
    PyObject *capturing; /* or NULL */
    PyObject *defaults;
    Py_ssize_t kind_count;
    Py_ssize_t required;
    Entry **buckets; /* one before the first entry, and then as many as ever needed: no pause */
    Entry *none;
    size_t mask;
    Entry *oldest;
    Entry *newest;
    size_t length;
    size_t limit;
    uint64_t *counts;
    size_t counter_count;
    uint64_t seed;
    char kinds[MOST_ARGS + 1];
    bool any[MOST_ARGS]; /* whose value no signature has */
} Calls;

static Entry **find_entry(const Calls *self, const Key *key, uint64_t hash) {
    Entry **link = &self->buckets[hash & self->mask];
    for (; *link != NULL; link = &(*link)->next) {
        const Entry *entry = *link;
        if (entry->hash == hash && entry->used == key->used &&
            memcmp(entry->words, key->words, key->used * sizeof *key->words) == 0)
            break;
    }
    return link;
}

/* Let go of entries that no table holds any more; this may run any code. */
static void free_entries(Entry *entry) {
    while (entry != NULL) {
        Entry *newer = entry->newer;
        Py_DECREF(entry->launch);
        Py_XDECREF(entry->captured);
        PyMem_Free(entry);
        entry = newer;
    }
}

static Entry *take_all(Calls *self) {
    Entry *oldest = self->oldest;
    if (self->buckets != NULL) memset(self->buckets, 0, (self->mask + 1) * sizeof *self->buckets);
    self->oldest = self->newest = NULL;
    self->length = 0;
    return oldest;
}

static Entry *take_oldest(Calls *self) {
    Entry *entry = self->oldest;
    Entry **link = &self->buckets[entry->hash & self->mask];
    while (*link != entry) link = &(*link)->next;
    *link = entry->next;
    self->oldest = entry->newer;
    if (self->oldest == NULL) self->newest = NULL;
    entry->newer = NULL;
    self->length--;
    return entry;
}

/* Fill in the arguments that a call leaves out; NULL where it has too few or too many. */
static PyObject *const *completed(
    const Calls *self, PyObject *const *args, Py_ssize_t count, PyObject **room
) {
    if (count == self->kind_count) return args;
    if (count > self->kind_count || count < self->required) return NULL;
    for (Py_ssize_t i = 0; i < self->kind_count; i++)
        room[i] = i < count ? args[i] : PyTuple_GetItem(self->defaults, i - self->required);
    return room;
}

static KeyStatus write_key(
    const Calls *self, Key *key, PyObject *const *args, uintptr_t *pointers
) {
    for (Py_ssize_t i = 0; i < self->kind_count; i++) {
        pointers[i] = UNREAD;
        KeyStatus status = key_argument(
            self->state, key, self->kinds[i], !self->any[i], args[i], &pointers[i]
        );
        if (status != KEY_MADE) return status;
    }
    return KEY_MADE;
}

static PyObject *as_tuple(PyObject *const *args, Py_ssize_t count) {
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++)
        PyTuple_SetItem(tuple, i, Py_NewRef(args[i]));
    return tuple;
}

/* Call a function of one argument: all arguments of the op. */
static PyObject *ask(PyObject *function, PyObject *const *args, Py_ssize_t count) {
    PyObject *tuple = as_tuple(args, count), *result = NULL;
    if (tuple != NULL) result = PyObject_CallFunctionObjArgs(function, tuple, NULL);
    Py_XDECREF(tuple);
    return result;
}

/* Whether a function of no arguments answers yes; -1 where it raises. */
static int says(PyObject *function) {
    PyObject *answer = PyObject_CallNoArgs(function);
    if (answer == NULL) return -1;
    int yes = Py_IsTrue(answer) ? 1 : Py_IsFalse(answer) ? 0 : PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return yes;
}

static int requires_grad(const State *state, PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject *answer;
    if (state->requires_grad != NULL && (type == state->tensor || type == state->parameter))
        answer = state->requires_grad(object, state->requires_grad_closure);
    else if (Py_IsNone(object))
        return 0;
    else
        answer = PyObject_GetAttrString(object, "requires_grad");
    if (answer == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) return -1;
        PyErr_Clear();
        return 0;
    }
    int yes = Py_IsTrue(answer) ? 1 : Py_IsFalse(answer) ? 0 : PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return yes;
}

static int has_tangent(const State *state, PyObject *object) {
    PyObject *answer = PyObject_CallFunctionObjArgs(state->has_tangent, object, NULL);
    if (answer == NULL) return -1;
    int yes = Py_IsTrue(answer) ? 1 : 0;
    Py_DECREF(answer);
    return yes;
}

/* 1 where forward gradients are wanted in this process, which is rare; another name is none. */
static int forwards(const State *state) {
    PyObject *level = PyDict_GetItemWithError(state->forward_ad, state->level_name);
    if (level == state->no_level) return 0;
    if (level == NULL) return PyErr_Occurred() ? -1 : 0;
    return PyObject_RichCompareBool(level, state->no_level, Py_GT);
}

/* 1 where a function says so of a tensor among the arguments, 0 where not, -1 with an error. */
static int any_tensor(
    const Calls *self, PyObject *const *args, int (*wanted)(const State *, PyObject *)
) {
    for (Py_ssize_t i = 0; i < self->kind_count; i++) {
        if (self->kinds[i] != 't' && self->kinds[i] != 'T') continue;
        int yes = wanted(self->state, args[i]);
        if (yes != 0) return yes;
    }
    return 0;
}

/* 1 where a gradient is wanted of a tensor, backwards or forwards, 0 where not, -1 with an error. */
static int wants_grad(const Calls *self, PyObject *const *args) {
    int yes = says(self->grad_enabled);
    if (yes > 0) yes = any_tensor(self, args, requires_grad);
    if (yes != 0) return yes;
    yes = forwards(self->state);
    return yes > 0 ? any_tensor(self, args, has_tangent) : yes;
}

static PyObject *answer(
    Calls *self, const Entry *entry, PyObject *const *args, const uintptr_t *pointers
) {
    size_t counter = entry->counter;
    /* From here on any code may run, and take the entry out of the table. */
    PyObject *launch = Py_NewRef(entry->launch), *result = NULL;
    if (entry->captured != NULL && self->capturing != NULL) {
        PyObject *captured = Py_NewRef(entry->captured);
        size_t captured_counter = entry->captured_counter;
        int yes = says(self->capturing);
        if (yes > 0) {
            Py_DECREF(launch);
            launch = captured;
            counter = captured_counter;
        } else {
            Py_DECREF(captured);
            if (yes < 0) goto done;
        }
    }
    if (Py_TYPE(launch) == self->state->recorded) {
        result = run_recorded((Recorded *)launch, args, self->kind_count, pointers);
    } else {
        PyObject *tuple = as_tuple(args, self->kind_count);
        if (tuple != NULL) result = PyObject_Call(launch, tuple, NULL);
        Py_XDECREF(tuple);
    }
    if (result != NULL) self->counts[counter]++;
done:
    Py_DECREF(launch);
    return result;
}

static PyObject *calls_call(PyObject *object, PyObject *const *given, Py_ssize_t count) {
    Calls *self = (Calls *)object;
    PyObject *room[MOST_ARGS];
    uintptr_t pointers[MOST_ARGS];
    Key key;
    PyObject *const *args = completed(self, given, count, room);
    if (args == NULL) {
        PyErr_Format(
            PyExc_TypeError, "call() takes %zd to %zd arguments, and %zd were given",
            self->required, self->kind_count, count
        );
        return NULL;
    }
    int grad = wants_grad(self, args);
    if (grad != 0) return grad < 0 ? NULL : ask(self->check_grad, args, self->kind_count);
    key_begin(&key);
    PyObject *result = NULL;
    const Entry *entry = NULL;
    KeyStatus status = write_key(self, &key, args, pointers);
    if (status == KEY_MADE) entry = *find_entry(self, &key, key_hash(&key, self->seed));
    key_end(&key);
    if (entry != NULL)
        result = answer(self, entry, args, pointers);
    else if (status != KEY_FAILED)
        result = ask(self->resolve, args, self->kind_count);
    return result;
}

/* Make the key of a sequence of arguments. */
static KeyStatus key_of(const Calls *self, PyObject *sequence, Key *key) {
    PyObject *given[MOST_ARGS], *room[MOST_ARGS];
    uintptr_t pointers[MOST_ARGS];
    PyObject *tuple = PySequence_Tuple(sequence);
    if (tuple == NULL) return KEY_FAILED;
    Py_ssize_t count = PyTuple_Size(tuple);
    KeyStatus status = KEY_NONE;
    if (count <= self->kind_count) {
        for (Py_ssize_t i = 0; i < count; i++) given[i] = PyTuple_GetItem(tuple, i);
        PyObject *const *args = completed(self, given, count, room);
        if (args != NULL) status = write_key(self, key, args, pointers);
    }
    Py_DECREF(tuple);
    return status;
}

static bool grow_counts(Calls *self, size_t counter) {
    if (counter < self->counter_count) return true;
    uint64_t *counts = PyMem_Realloc(self->counts, (counter + 1) * sizeof *counts);
    if (counts == NULL) return PyErr_NoMemory() != NULL;
    memset(counts + self->counter_count, 0, (counter + 1 - self->counter_count) * sizeof *counts);
    self->counts = counts;
    self->counter_count = counter + 1;
    return true;
}

static Entry *new_entry(const Key *key, uint64_t hash) {
    Entry *entry = PyMem_Calloc(1, sizeof *entry + key->used * sizeof *key->words);
    if (entry == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    entry->hash = hash;
    entry->used = key->used;
    memcpy(entry->words, key->words, key->used * sizeof *key->words);
    return entry;
}

/* Make room for all entries before the first one; ops that are never called have no table. */
static bool open_table(Calls *self) {
    if (self->mask != 0) return true;
    size_t buckets = 16;
    while (buckets < self->limit) buckets *= 2;
    Entry **made = PyMem_Calloc(buckets, sizeof *made);
    if (made == NULL) return PyErr_NoMemory() != NULL;
    self->buckets = made;
    self->mask = buckets - 1;
    return true;
}

/* Return an entry of a key, with its references still to be set; `old` is what it replaces. */
static Entry *place_entry(Calls *self, const Key *key, Entry **old) {
    uint64_t hash = key_hash(key, self->seed);
    Entry *entry = *find_entry(self, key, hash);
    if (entry != NULL) return entry;
    if (!open_table(self)) return NULL;
    entry = new_entry(key, hash);
    if (entry == NULL) return NULL;
    if (self->length >= self->limit) *old = take_oldest(self);
    Entry **bucket = &self->buckets[hash & self->mask];
    entry->next = *bucket;
    *bucket = entry;
    if (self->newest == NULL)
        self->oldest = entry;
    else
        self->newest->newer = entry;
    self->newest = entry;
    self->length++;
    return entry;
}

static PyObject *calls_put(PyObject *object, PyObject *args, PyObject *names) {
    static char *keywords[] = {"args", "launch", "counter", "captured", "captured_counter", NULL};
    static const char *wanted = "a counter must be 0 to 65535";
    Calls *self = (Calls *)object;
    PyObject *given, *launch, *captured = Py_None, *counter = NULL, *captured_counter = NULL;
    long long place = 0, captured_place = 0;
    if (!PyArg_ParseTupleAndKeywords(
            args, names, "OO|OOO", keywords, &given, &launch, &counter, &captured,
            &captured_counter
        ))
        return NULL;
    if (counter != NULL && !ranged(counter, 0, MOST_COUNTERS - 1, wanted, &place)) return NULL;
    if (captured_counter != NULL &&
        !ranged(captured_counter, 0, MOST_COUNTERS - 1, wanted, &captured_place))
        return NULL;
    if (!grow_counts(self, (size_t)place) || !grow_counts(self, (size_t)captured_place))
        return NULL;
    Key key;
    Entry *entry = NULL, *old = NULL;
    PyObject *old_launch = NULL, *old_captured = NULL;
    key_begin(&key);
    KeyStatus status = key_of(self, given, &key);
    if (status == KEY_MADE) entry = place_entry(self, &key, &old);
    key_end(&key);
    if (entry != NULL) {
        old_launch = entry->launch;
        old_captured = entry->captured;
        entry->launch = Py_NewRef(launch);
        entry->captured = Py_IsNone(captured) ? NULL : Py_NewRef(captured);
        entry->counter = (size_t)place;
        entry->captured_counter = (size_t)captured_place;
    }
    Py_XDECREF(old_launch);
    Py_XDECREF(old_captured);
    free_entries(old);
    if (status == KEY_NONE) Py_RETURN_FALSE;
    return entry == NULL ? NULL : Py_NewRef(Py_True);
}

static PyObject *calls_get(PyObject *object, PyObject *given) {
    Calls *self = (Calls *)object;
    Key key;
    PyObject *found = NULL;
    key_begin(&key);
    KeyStatus status = key_of(self, given, &key);
    if (status != KEY_FAILED) {
        const Entry *entry =
            status == KEY_MADE ? *find_entry(self, &key, key_hash(&key, self->seed)) : NULL;
        found = Py_NewRef(entry == NULL ? Py_None : entry->launch);
    }
    key_end(&key);
    return found;
}

static PyObject *calls_count(PyObject *object, PyObject *counter) {
    const Calls *self = (Calls *)object;
    int overflow = 0;
    long long place = PyLong_AsLongLongAndOverflow(counter, &overflow);
    if (place == -1 && PyErr_Occurred()) return NULL;
    bool known = overflow == 0 && place >= 0 && (unsigned long long)place < self->counter_count;
    return PyLong_FromUnsignedLongLong(known ? self->counts[place] : 0);
}

static PyObject *calls_accept_any(PyObject *object, PyObject *places) {
    static const char *wanted = "a place must be that of a float";
    Calls *self = (Calls *)object;
    bool any[MOST_ARGS] = {false};
    PyObject *tuple = PySequence_Tuple(places);
    if (tuple == NULL) return NULL;
    for (Py_ssize_t i = 0; i < PyTuple_Size(tuple); i++) {
        long long place;
        if (!ranged(PyTuple_GetItem(tuple, i), 0, self->kind_count - 1, wanted, &place)) goto failed;
        if (self->kinds[place] != 'f' && self->kinds[place] != 'F') {
            PyErr_SetString(PyExc_ValueError, wanted);
            goto failed;
        }
        any[place] = true;
    }
    Py_DECREF(tuple);
    memcpy(self->any, any, sizeof any);
    free_entries(take_all(self));
    Py_RETURN_NONE;
failed:
    Py_DECREF(tuple);
    return NULL;
}

static PyObject *calls_clear_all(PyObject *object, PyObject *unused) {
    (void)unused;
    free_entries(take_all((Calls *)object));
    Py_RETURN_NONE;
}

static Py_ssize_t calls_length(PyObject *object) { return (Py_ssize_t)((Calls *)object)->length; }

static bool read_kinds(Calls *self, PyObject *kinds) {
    Py_ssize_t count = PyUnicode_GetLength(kinds);
    if (count > MOST_ARGS) {
        PyErr_Format(PyExc_ValueError, "kinds must be %d at most", MOST_ARGS);
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_UCS4 kind = PyUnicode_ReadChar(kinds, i);
        if (kind == 'o') {
            PyErr_SetString(PyExc_ValueError, "kinds has 'o', which only calls.py reads");
            return false;
        }
        if (kind == 0 || kind > 127 || strchr("tTiIfFbBsSlL", (int)kind) == NULL) {
            PyErr_Format(
                PyExc_ValueError, "kinds has '%c', which is none of tTiIfFbBsSlLo", (int)kind
            );
            return false;
        }
        self->kinds[i] = (char)kind;
    }
    self->kind_count = count;
    return true;
}

static bool make_table(Calls *self, long long limit) {
    PyObject *word = PyUnicode_FromString("kernelpkg");
    if (word == NULL) return false;
    self->seed = (uint64_t)PyObject_Hash(word); /* another one in each process, as Python's are */
    Py_DECREF(word);
    self->limit = (size_t)limit;
    self->buckets = &self->none;
    self->mask = 0;
    return true;
}

static PyObject *calls_new(PyTypeObject *type, PyObject *args, PyObject *names) {
    static char *keywords[] = {"kinds",    "resolve", "grad_enabled", "check_grad",
                               "defaults", "limit",   "capturing",    NULL};
    PyObject *kinds, *resolve, *grad_enabled = NULL, *check = NULL, *capturing = Py_None;
    PyObject *defaults = NULL, *limit = NULL;
    long long most = 32768;
    if (!PyArg_ParseTupleAndKeywords(
            args, names, "UO|$OOO!OO", keywords, &kinds, &resolve, &grad_enabled, &check,
            &PyTuple_Type, &defaults, &limit, &capturing
        ))
        return NULL;
    if (grad_enabled == NULL || check == NULL) {
        PyErr_SetString(PyExc_TypeError, "grad_enabled and check_grad must be given");
        return NULL;
    }
    const State *state = PyType_GetModuleState(type);
    if (state == NULL || state->exchange == NULL) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_RuntimeError, "call setup first");
        return NULL;
    }
    Calls *self = (Calls *)PyType_GenericAlloc(type, 0);
    if (self == NULL) return NULL;
    self->state = state;
    self->resolve = Py_NewRef(resolve);
    self->grad_enabled = Py_NewRef(grad_enabled);
    self->check_grad = Py_NewRef(check);
    self->capturing = Py_IsNone(capturing) ? NULL : Py_NewRef(capturing);
    self->defaults = defaults == NULL ? PyTuple_New(0) : Py_NewRef(defaults);
    if (self->defaults == NULL || !read_kinds(self, kinds)) goto failed;
    self->required = self->kind_count - PyTuple_Size(self->defaults);
    if (self->required < 0) {
        PyErr_SetString(PyExc_ValueError, "defaults must not be more than kinds");
        goto failed;
    }
    if (limit != NULL && !ranged(limit, 1, MOST_ENTRIES, "limit must be 1 to 16777216", &most))
        goto failed;
    if (!make_table(self, most)) goto failed;
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

static int calls_traverse(PyObject *object, visitproc visit, void *arg) {
    Calls *self = (Calls *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->resolve);
    Py_VISIT(self->grad_enabled);
    Py_VISIT(self->check_grad);
    Py_VISIT(self->capturing);
    Py_VISIT(self->defaults);
    for (const Entry *entry = self->oldest; entry != NULL; entry = entry->newer) {
        Py_VISIT(entry->launch);
        Py_VISIT(entry->captured);
    }
    return 0;
}

/* Break circles: what is resolved has a reference to its table. The functions stay until the end,
 * so that a call that is still to come finds them. */
static int calls_break(PyObject *object) {
    Calls *self = (Calls *)object;
    free_entries(take_all(self));
    return 0;
}

static void calls_dealloc(PyObject *object) {
    Calls *self = (Calls *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    calls_break(object);
    Py_XDECREF(self->resolve);
    Py_XDECREF(self->grad_enabled);
    Py_XDECREF(self->check_grad);
    Py_XDECREF(self->capturing);
    Py_XDECREF(self->defaults);
    if (self->buckets != &self->none) PyMem_Free(self->buckets);
    PyMem_Free(self->counts);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

#define METHOD(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef calls_methods[] = {
    {"call", METHOD(calls_call), METH_FASTCALL, "Answer a call of the op."},
    {"put", METHOD(calls_put), METH_VARARGS | METH_KEYWORDS,
     "Remember what answers calls of a signature; False for arguments that have none."},
    {"get", calls_get, METH_O, "Return what answers calls of a signature, or None."},
    {"count", calls_count, METH_O, "Return how many calls were answered under a counter."},
    {"accept_any", calls_accept_any, METH_O,
     "Leave the values of floats out of signatures, and forget all of these."},
    {"clear", calls_clear_all, METH_NOARGS, "Forget all signatures; the counts stay."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot calls_slots[] = {
    {Py_tp_doc, "Finds what a call launches by its signature; see launch/calls.py."},
    {Py_tp_new, SLOT(calls_new)},
    {Py_tp_methods, calls_methods},
    {Py_sq_length, SLOT(calls_length)},
    {Py_tp_traverse, SLOT(calls_traverse)},
    {Py_tp_clear, SLOT(calls_break)},
    {Py_tp_dealloc, SLOT(calls_dealloc)},
    {0, NULL},
};

static PyType_Spec calls_spec = {
    .name = "kernelpkg.launch._native.Calls",
    .basicsize = sizeof(Calls),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = calls_slots,
};

/* -- The module -- */

static const Exchange *find_exchange(PyObject *capsule) {
    if (!PyCapsule_IsValid(capsule, "dlpack_exchange_api")) {
        PyErr_SetString(
            PyExc_ValueError, "PyTorch has no C exchange API of DLPack; 2.11 and later have it"
        );
        return NULL;
    }
    const ExchangeHeader *header = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
    uint32_t newest = header->version.major;
    while (header != NULL && header->version.major != DLPACK_MAJOR) header = header->older;
    const Exchange *exchange = (const Exchange *)header;
    if (exchange == NULL || exchange->read_tensor == NULL || exchange->current_stream == NULL) {
        PyErr_Format(
            PyExc_ValueError,
            "PyTorch exchanges tensors by DLPack %u, and this reads 1; install a newer kernelpkg",
            (unsigned int)newest
        );
        return NULL;
    }
    return exchange;
}

/* Find the C function behind torch.Tensor.requires_grad: a look-up by name costs 40 ns a tensor. */
static void find_requires_grad(State *state) {
    PyObject *descriptor = PyObject_GetAttrString((PyObject *)state->tensor, "requires_grad");
    PyObject *owner = NULL;
    state->requires_grad = NULL;
    if (descriptor != NULL && Py_TYPE(descriptor) == &PyGetSetDescr_Type)
        owner = PyObject_GetAttrString(descriptor, "__objclass__");
    PyErr_Clear();
    const PyGetSetDef *found = NULL;
    if (owner != NULL && PyType_Check(owner))
        found = PyType_GetSlot((PyTypeObject *)owner, Py_tp_getset);
    PyErr_Clear();
    for (; found != NULL && found->name != NULL; found++) {
        if (strcmp(found->name, "requires_grad") == 0) {
            state->requires_grad = found->get;
            state->requires_grad_closure = found->closure;
            break;
        }
    }
    Py_XDECREF(owner);
    Py_XDECREF(descriptor);
}

static void hold(PyObject **place, PyObject *object) {
    PyObject *old = *place;
    *place = Py_NewRef(object);
    Py_XDECREF(old);
}

static PyObject *module_setup(PyObject *module, PyObject *args) {
    State *state = PyModule_GetState(module);
    PyObject *capsule, *tensor, *parameter, *empty_strided, *quick_empty, *failure, *launch_error;
    PyObject *forward_ad, *tangent;
    if (!PyArg_ParseTuple(
            args, "OO!O!OO!OOO!O", &capsule, &PyType_Type, &tensor, &PyType_Type, &parameter,
            &empty_strided, &PyDict_Type, &quick_empty, &failure, &launch_error, &PyDict_Type,
            &forward_ad, &tangent
        ))
        return NULL;
    const Exchange *exchange = find_exchange(capsule);
    if (exchange == NULL) return NULL;
    PyObject *dispatch = PyObject_GetAttrString(tensor, "__torch_dispatch__");
    if (dispatch == NULL) return NULL;
    hold((PyObject **)&state->tensor, tensor);
    hold((PyObject **)&state->parameter, parameter);
    hold(&state->plain_dispatch, dispatch);
    hold(&state->empty_strided, empty_strided);
    hold(&state->quick_empty, quick_empty);
    hold(&state->failure, failure);
    hold(&state->launch_error, launch_error);
    hold(&state->forward_ad, forward_ad);
    hold(&state->has_tangent, tangent);
    hold(&state->capsule, capsule);
    Py_DECREF(dispatch);
    state->exchange = exchange;
    find_requires_grad(state);
    Py_RETURN_NONE;
}

static PyObject *module_open_driver(PyObject *module, PyObject *path) {
    const State *state = PyModule_GetState(module);
    PyObject *bytes = NULL;
    if (state->exchange == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "call setup first");
        return NULL;
    }
    if (!PyUnicode_FSConverter(path, &bytes)) return NULL;
    bool opened = open_driver(state, PyBytes_AsString(bytes));
    Py_DECREF(bytes);
    return opened ? Py_NewRef(Py_None) : NULL;
}

static int module_exec(PyObject *module) {
    State *state = PyModule_GetState(module);
    state->recorded = (PyTypeObject *)PyType_FromModuleAndSpec(module, &recorded_spec, NULL);
    if (state->recorded == NULL || PyModule_AddType(module, state->recorded) != 0) return -1;
    state->level_name = PyUnicode_InternFromString("_current_level");
    state->no_level = PyLong_FromLong(-1); /* CPython has one object of each small number */
    if (state->level_name == NULL || state->no_level == NULL) return -1;
    state->calls = (PyTypeObject *)PyType_FromModuleAndSpec(module, &calls_spec, NULL);
    if (state->calls == NULL || PyModule_AddType(module, state->calls) != 0) return -1;
    return PyModule_AddIntConstant(module, "INTERFACE", INTERFACE);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    State *state = PyModule_GetState(module);
    if (state == NULL) return 0;
    Py_VISIT(state->recorded);
    Py_VISIT(state->calls);
    Py_VISIT(state->tensor);
    Py_VISIT(state->parameter);
    Py_VISIT(state->plain_dispatch);
    Py_VISIT(state->empty_strided);
    Py_VISIT(state->quick_empty);
    Py_VISIT(state->failure);
    Py_VISIT(state->launch_error);
    Py_VISIT(state->forward_ad);
    Py_VISIT(state->level_name);
    Py_VISIT(state->no_level);
    Py_VISIT(state->has_tangent);
    Py_VISIT(state->capsule);
    return 0;
}

static void module_free(void *module) {
    State *state = PyModule_GetState(module);
    if (state == NULL) return;
    Py_CLEAR(state->recorded);
    Py_CLEAR(state->calls);
    Py_CLEAR(state->tensor);
    Py_CLEAR(state->parameter);
    Py_CLEAR(state->plain_dispatch);
    Py_CLEAR(state->empty_strided);
    Py_CLEAR(state->quick_empty);
    Py_CLEAR(state->failure);
    Py_CLEAR(state->launch_error);
    Py_CLEAR(state->forward_ad);
    Py_CLEAR(state->level_name);
    Py_CLEAR(state->no_level);
    Py_CLEAR(state->has_tangent);
    Py_CLEAR(state->capsule);
}

static PyMethodDef module_methods[] = {
    {"setup", module_setup, METH_VARARGS,
     "Take PyTorch's table of functions and classes, and the errors of launch/driver.py."},
    {"open_driver", module_open_driver, METH_O, "Open a driver, which is used from now on."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, SLOT(module_exec)},
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "The launcher in C; see launch/native.py.",
    .m_size = sizeof(State),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&module_definition); }
