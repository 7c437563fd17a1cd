/* SPDX-License-Identifier: Apache-2.0 */
/* In libFuzzer's place: runs a target once over each file of the folders that it is given, so that what fuzzing has found
 * stays mended where there is no libFuzzer.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Memory of exactly its size, so that a sanitizer sees the first byte that is read behind it. */
static void run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    long size = -1;

    if (f != NULL && fseek(f, 0, SEEK_END) == 0)
        size = ftell(f);
    uint8_t *data = size >= 0 ? malloc(size > 0 ? (size_t)size : 1) : NULL;
    if (data == NULL || fseek(f, 0, SEEK_SET) != 0 || fread(data, 1, (size_t)size, f) != (size_t)size) {
        perror(path);
        exit(1);
    }
    fclose(f);
    fprintf(stderr, "%s\n", path);
    LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
}

int main(int argc, char *argv[])
{
    unsigned n = 0;

    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        if (dir == NULL) {
            perror(argv[i]);
            return 1;
        }
        for (const struct dirent *d; (d = readdir(dir)) != NULL;) {
            char path[4096];
            if (d->d_name[0] == '.')
                continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], d->d_name);
            run_file(path);
            n++;
        }
        closedir(dir);
    }
    printf("%u inputs\n", n);
    return n > 0 ? 0 : 1;
}
