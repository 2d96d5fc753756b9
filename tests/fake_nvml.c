/* A stand-in for the NVIDIA driver's libnvidia-ml.so.1: just what the meter calls.
 *
 * Its energy counters advance with CLOCK_MONOTONIC. What it pretends is read at every call from the
 * file named by FAKE_NVML, so that a test can lose a GPU or reload the driver in mid-window. Lines
 * are KEY GPU VALUE; keys without a GPU take 0 there:
 *
 *   count 0 N         GPUs                      init 0 CODE      answer of nvmlInit
 *   power G WATTS     draw, default 100         code G CODE      answer of every call about a GPU
 *   energy G CODE     answer for its energy     offset G MJ      added to its counter
 *   period 0 MS       step, default 20          frozen G 1       counter that never moves
 *   mig G 1           split into slices         model G N        its name: "Fake GPU N"
 *   nopower G 1       tells no power            (FAKE_GPU_NAME is a name for all of them)
 *
 * Whatever pretends to work on GPU G appends a byte for every millijoule to the file that is named
 * by FAKE_NVML_WORK with .G at its end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static int indices[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static double setting(const char *key, int gpu, double otherwise)
{
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char word[64];
    int index;
    double value, found = otherwise;
    if (!file)
        return otherwise;
    while (fscanf(file, "%63s %d %lf", word, &index, &value) == 3)
        if (strcmp(word, key) == 0 && index == gpu)
            found = value;
    fclose(file);
    return found;
}

static int state(int *device)
{
    return (int)setting("code", *device, 0);
}

int nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    return (int)setting("init", 0, 0);
}

int nvmlShutdown(void)
{
    return 0;
}

const char *nvmlErrorString(int code)
{
    (void)code;
    return "made up";
}

int nvmlDeviceGetCount_v2(unsigned int *count)
{
    *count = (unsigned int)setting("count", 0, 1);
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, int **device)
{
    *device = &indices[index];
    return state(*device);
}

int nvmlDeviceGetUUID(int *device, char *uuid, unsigned int length)
{
    snprintf(uuid, length, "GPU-%08x-1111-2222-3333-444444444444", 0xa0 + *device);
    return state(device);
}

int nvmlDeviceGetName(int *device, char *name, unsigned int length)
{
    const char *given = getenv("FAKE_GPU_NAME");
    if (given)
        snprintf(name, length, "%s", given);
    else
        snprintf(name, length, "Fake GPU %d", (int)setting("model", *device, 100));
    return state(device);
}

int nvmlDeviceGetMigMode(int *device, unsigned int *current, unsigned int *pending)
{
    double mig = setting("mig", *device, -1);
    if (mig < 0)
        return 3;
    *current = *pending = (unsigned int)mig;
    return state(device);
}

int nvmlDeviceGetPowerUsage(int *device, unsigned int *milliwatts)
{
    *milliwatts = (unsigned int)(1000 * setting("power", *device, 100));
    if (setting("nopower", *device, 0))
        return 3;
    return state(device);
}

#ifndef OLD_DRIVER
static double worked_mj(int gpu)
{
    const char *base = getenv("FAKE_NVML_WORK");
    char path[4096];
    struct stat file;
    if (!base)
        return 0;
    snprintf(path, sizeof path, "%s.%d", base, gpu);
    return stat(path, &file) == 0 ? (double)file.st_size : 0;
}

int nvmlDeviceGetTotalEnergyConsumption(int *device, unsigned long long *millijoules)
{
    struct timespec now;
    double period_s = setting("period", 0, 20) / 1000, time_s;
    int code = (int)setting("energy", *device, state(device)), frozen;
    clock_gettime(CLOCK_MONOTONIC, &now);
    time_s = now.tv_sec + now.tv_nsec * 1e-9;
    time_s = (double)(long long)(time_s / period_s) * period_s;
    frozen = (int)setting("frozen", *device, 0);
    if (frozen)
        time_s = 1000;
    *millijoules = (unsigned long long)(time_s * 1000 * setting("power", *device, 100)
                                        + setting("offset", *device, 0)
                                        + (frozen ? 0 : worked_mj(*device)));
    return code;
}
#endif
