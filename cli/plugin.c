/* SPDX-License-Identifier: Apache-2.0 */
#include "modules.h"
#include "words.h"
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <string.h>
#include <unistd.h>

/* The symbol must be the struct itself: reading a pointer, or a smaller struct, as one would read past its end. A struct
 * of an older version may be smaller. */
static bool is_module_object(void *symbol)
{
    const struct nst_module *m = symbol;
    size_t least = offsetof(struct nst_module, merge); /* the end of the first version's, nearly */
    const ElfW(Sym) *elf = NULL;
    Dl_info info;

    if (dladdr1(symbol, &info, (void **)&elf, RTLD_DL_SYMENT) == 0 || elf == NULL)
        return false;
    return ELF64_ST_TYPE(elf->st_info) == STT_OBJECT && elf->st_size >= least &&
           (m->abi != NST_MODULE_ABI || elf->st_size >= sizeof *m);
}

static int load(const struct nst_module **out, const char *path, struct complaint *c)
{
    const struct nst_module *m;
    char here[4096];
    void *handle;

    if (access(path, R_OK) != 0)
        return complain(c, -errno, "%s: %s", path, strerror(errno));
    if (strchr(path, '/') == NULL) {
        /* dlopen looks for a bare name in the library path only. */
        if ((size_t)snprintf(here, sizeof here, "./%s", path) >= sizeof here)
            return complain(c, -ENAMETOOLONG, "%s: %s", path, strerror(ENAMETOOLONG));
        path = here;
    }
    handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL)
        return complain(c, -ENOEXEC, "%s cannot be loaded: %s", path, dlerror());
    m = dlsym(handle, "nst_module");
    if (m == NULL)
        return complain(c, -ENOEXEC, "%s is not a NetStar module: it does not export nst_module", path);
    if (!is_module_object((void *)m))
        return complain(c, -ENOEXEC, "%s is not a NetStar module: its nst_module is not a struct nst_module", path);
    if (m->abi != NST_MODULE_ABI)
        return complain(c, -ENOEXEC,
                        "%s was made for version %u of the module interface, this netstar has version %d: "
                        "build it again",
                        path, m->abi, NST_MODULE_ABI);
    if (m->name == NULL || m->open == NULL)
        return complain(c, -ENOEXEC, "%s is not a NetStar module: its nst_module has no %s", path,
                        m->name == NULL ? "name" : "open function");
    *out = m;
    return 0;
}

int module_find(const struct nst_module **out, const char *name, struct complaint *c)
{
    struct word_search search = { .wanted = name };
    size_t len = strlen(name);

    if (strchr(name, '/') != NULL || (len > 3 && strcmp(name + len - 3, ".so") == 0))
        return load(out, name, c);
    for (const struct nst_module *const *m = builtin_modules; *m != NULL; m++) {
        if (strcmp((*m)->name, name) == 0) {
            *out = *m;
            return 0;
        }
        word_offer(&search, (*m)->name);
    }
    if (word_nearest(&search) != NULL)
        return complain(c, -EINVAL, "unknown network function %s; did you mean %s?", name, word_nearest(&search));
    return complain(c, -EINVAL,
                    "unknown network function %s; `netstar help run` lists them, a file is given as ./%s.so", name,
                    name);
}
