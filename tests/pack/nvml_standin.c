/* Stands in for NVIDIA's management library: answers come from a file that a test writes, looked at in every call.
 *
 * NVML_STANDIN names it. Its lines are "KEY VALUE": "count 2", "power.0 120000" (of GPU 0), "error.nvmlInit_v2 9" (what a
 * function returns), "error.gpu.1 15" (what every function of a GPU returns), "error.all 1". Compiled with OLD_DRIVER it
 * lacks the functions that came late.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CALL(function) do { int error_ = error_of(#function, -1); if (error_) return error_; } while (0)
#define OF(function) int gpu = index_of(handle); do { int error_ = error_of(#function, gpu); if (error_) return error_; } while (0)

static int text_of(const char *key, char *out, size_t room) {
    const char *path = getenv("NVML_STANDIN");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[256];
    size_t length = strlen(key);
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, length) == 0 && line[length] == ' ') {
            line[strcspn(line, "\n")] = 0;
            snprintf(out, room, "%s", line + length + 1);
            found = 1;
        }
    }
    if (file) fclose(file);
    return found;
}

static unsigned long long number(const char *name, int gpu, unsigned long long otherwise) {
    char key[128], text[256];
    snprintf(key, sizeof key, "%s.%d", name, gpu);
    if (!text_of(gpu < 0 ? name : key, text, sizeof text)) return otherwise;
    return strtoull(text, NULL, 0);
}

static int error_of(const char *function, int gpu) {
    char key[128];
    int error = (int)number("error.all", -1, 0);
    snprintf(key, sizeof key, "error.%s", function);
    if (!error) error = (int)number(key, -1, 0);
    snprintf(key, sizeof key, "error.gpu.%d", gpu);
    if (!error && gpu >= 0) error = (int)number(key, -1, 0);
    return error;
}

static int index_of(void *handle) { return (int)(intptr_t)handle - 1; }

static void pause_ms(long milliseconds) {
    struct timespec wait = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    nanosleep(&wait, NULL);
}

static int put(char *out, unsigned room, const char *text) {
    snprintf(out, room, "%s", text);
    return 0;
}

int nvmlInit_v2(void) { CALL(nvmlInit_v2); return 0; }
int nvmlShutdown(void) { CALL(nvmlShutdown); return 0; }
const char *nvmlErrorString(int code) {
    return code == 3 ? "Not Supported" : code == 15 ? "GPU is lost" : code == 1 ? "Uninitialized" : code == 9 ? "Driver Not Loaded" : "Unknown Error";
}
int nvmlSystemGetDriverVersion(char *out, unsigned room) { CALL(nvmlSystemGetDriverVersion); return put(out, room, "580.65"); }
int nvmlSystemGetCudaDriverVersion(int *out) { CALL(nvmlSystemGetCudaDriverVersion); *out = 13000; return 0; }
int nvmlDeviceGetCount_v2(unsigned *out) { CALL(nvmlDeviceGetCount_v2); *out = (unsigned)number("count", -1, 1); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned gpu, void **out) {
    int error = error_of("nvmlDeviceGetHandleByIndex_v2", (int)gpu);
    if (error) return error;
    *out = (void *)(intptr_t)(gpu + 1);
    return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **out) {
    char known[256];
    CALL(nvmlDeviceGetHandleByUUID);
    if (!text_of("mig", known, sizeof known) || strcmp(uuid, known)) return 6;
    *out = (void *)(intptr_t)1;
    return 0;
}
int nvmlDeviceGetUUID(void *handle, char *out, unsigned room) {
    OF(nvmlDeviceGetUUID);
    char text[64];
    snprintf(text, sizeof text, "GPU-0000000%d-aaaa", gpu);
    return put(out, room, text);
}
int nvmlDeviceGetName(void *handle, char *out, unsigned room) {
    OF(nvmlDeviceGetName);
    char key[32], text[256] = "NVIDIA GeForce RTX 4090";
    snprintf(key, sizeof key, "name.%d", gpu);
    text_of(key, text, sizeof text);
    return put(out, room, text);
}
int nvmlDeviceGetMemoryInfo(void *handle, unsigned long long *out) {
    OF(nvmlDeviceGetMemoryInfo);
    out[0] = number("total", gpu, 25757220864ULL);
    out[2] = number("used", gpu, 8589934592ULL);
    out[1] = out[0] - out[2];
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *handle, unsigned *out) {
    OF(nvmlDeviceGetUtilizationRates);
    out[0] = (unsigned)number("utilisation", gpu, 97);
    out[1] = 11;
    return 0;
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned *out) { OF(nvmlDeviceGetPowerUsage); *out = (unsigned)number("power", gpu, 321500); return 0; }
int nvmlDeviceGetPowerManagementLimit(void *handle, unsigned *out) { OF(nvmlDeviceGetPowerManagementLimit); *out = 350000; return 0; }
int nvmlDeviceGetPowerManagementDefaultLimit(void *handle, unsigned *out) { OF(nvmlDeviceGetPowerManagementDefaultLimit); *out = 450000; return 0; }
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *out) { OF(nvmlDeviceGetTemperature); *out = sensor == 0 ? 64 : 0; return 0; }
int nvmlDeviceGetClockInfo(void *handle, int kind, unsigned *out) { OF(nvmlDeviceGetClockInfo); *out = 1000u * (unsigned)kind; return 0; }
int nvmlDeviceGetMaxClockInfo(void *handle, int kind, unsigned *out) { OF(nvmlDeviceGetMaxClockInfo); *out = 3000u * (unsigned)kind; return 0; }
int nvmlDeviceGetCurrPcieLinkGeneration(void *handle, unsigned *out) { OF(nvmlDeviceGetCurrPcieLinkGeneration); *out = 3u + (unsigned)gpu; return 0; }
int nvmlDeviceGetMaxPcieLinkGeneration(void *handle, unsigned *out) { OF(nvmlDeviceGetMaxPcieLinkGeneration); *out = 4; return 0; }
int nvmlDeviceGetCurrPcieLinkWidth(void *handle, unsigned *out) { OF(nvmlDeviceGetCurrPcieLinkWidth); *out = 4; return 0; }
int nvmlDeviceGetMaxPcieLinkWidth(void *handle, unsigned *out) { OF(nvmlDeviceGetMaxPcieLinkWidth); *out = 16; return 0; }
int nvmlDeviceGetPersistenceMode(void *handle, unsigned *out) { OF(nvmlDeviceGetPersistenceMode); *out = 1; return 0; }
int nvmlDeviceGetEccMode(void *handle, unsigned *now, unsigned *pending) { OF(nvmlDeviceGetEccMode); *now = 0; *pending = 1; return 0; }
int nvmlDeviceGetPcieThroughput(void *handle, int counter, unsigned *out) {
    OF(nvmlDeviceGetPcieThroughput);
    pause_ms((long)number("pcie_ms", -1, 0));
    *out = counter == 1 ? 5000 : 700;
    return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *out) {
    OF(nvmlDeviceGetCurrentClocksThrottleReasons);
    *out = number("throttle", gpu, 0);
    return 0;
}

/* The entries are of `entry` bytes: 16, 24 or 32 have all been seen. The first call tells how many there are. */
static int processes(int gpu, unsigned *count, char *out, unsigned entry) {
    unsigned there = (unsigned)number("processes", gpu, 0), room = *count;
    *count = there;
    if (!there) return 0;
    if (!out || room < there) return 7;
    for (unsigned place = 0; place < there; place++) {
        char key[32], *at = out + place * entry;
        snprintf(key, sizeof key, "pid%u", place);
        uint32_t pid = (uint32_t)number(key, gpu, 1), none = 0xffffffff;
        snprintf(key, sizeof key, "bytes%u", place);
        uint64_t used = number(key, gpu, 1000);
        memset(at, 0, entry);
        memcpy(at, &pid, sizeof pid);
        memcpy(at + 8, &used, sizeof used);
        if (entry >= 24) { memcpy(at + 16, &none, 4); memcpy(at + 20, &none, 4); }
    }
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses(void *handle, unsigned *count, char *out) {
    OF(nvmlDeviceGetComputeRunningProcesses);
    return processes(gpu, count, out, 16);
}

#ifndef OLD_DRIVER
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, char *out) {
    OF(nvmlDeviceGetComputeRunningProcesses_v3);
    return processes(gpu, count, out, (unsigned)number("entry", -1, 24));
}
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *out) {
    OF(nvmlDeviceGetTotalEnergyConsumption);
    *out = number("energy", gpu, 123456789ULL);
    return 0;
}
int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *out) {
    OF(nvmlDeviceGetCurrentClocksEventReasons);
    *out = number("throttle", gpu, 0);
    return 0;
}
#endif
