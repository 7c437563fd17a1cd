/* SPDX-License-Identifier: Apache-2.0 */
/* The places where instances are asked: names of files, finding one, and what others have left there. */
#include "cli/control_place.h"
#include "cli/modules.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

const struct nst_module *const builtin_modules[] = { NULL };

static char dir[] = "/tmp/netstar-place-XXXXXX";
static struct complaint c;

static void names(void **state)
{
    struct place p;

    assert_true(place_name_ok("edge-1_a.b"));
    assert_true(place_name_ok("12345678901234567890123456789012"));
    assert_false(place_name_ok("123456789012345678901234567890123"));
    assert_false(place_name_ok(""));
    assert_false(place_name_ok(".edge"));
    assert_false(place_name_ok("a/b"));
    assert_false(place_name_ok("a b"));
    assert_true(place_parse("/run/x", "edge.a.17.sock", &p));
    assert_string_equal(p.name, "edge.a");
    assert_int_equal(p.pid, 17);
    assert_string_equal(p.path, "/run/x/edge.a.17.sock");
    static const char *const none[] = { "edge.sock",     "edge.17",      "edge.17.sock.new",
                                        "edge.-1.sock",  "edge.0.sock",  "edge.1x.sock",
                                        ".17.sock",      ".sock",        "edge..sock",
                                        "ed ge.17.sock", "edge. 7.sock", "edge.99999999999999999999.sock" };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        if (place_parse("/run/x", none[i], &p))
            fail_msg("taken: %s", none[i]);
}

static void finding(void **state)
{
    struct place a, b, found;
    struct stat st;
    char pid[16];
    int one, fd;

    assert_int_equal(place_find(dir, NULL, &found, &c), -ESRCH);
    one = place_make(dir, "edge", true, &a, &c);
    assert_true(one >= 0);
    assert_int_equal(stat(a.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    fd = place_find(dir, NULL, &found, &c);
    assert_true(fd >= 0);
    assert_string_equal(found.name, "edge");
    close(fd);
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    fd = place_find(dir, pid, &found, &c);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(place_find(dir, "egde", &found, &c), -ESRCH);
    assert_non_null(strstr(c.text, "egde"));
    /* A second one in the same process has another name; then one must be said. */
    int two = place_make(dir, "other", true, &b, &c);
    assert_true(two >= 0);
    assert_int_equal(place_find(dir, NULL, &found, &c), -ENOTUNIQ);
    assert_non_null(strstr(c.text, "edge ("));
    assert_non_null(strstr(c.text, "other ("));
    assert_int_equal(place_make(dir, "edge", true, &found, &c), -EEXIST);
    close(one);
    close(two);
    unlink(a.path);
    unlink(b.path);
}

/* What a killed process has left is removed; what is no socket of these stays. */
static void leftovers(void **state)
{
    struct place p, mine;
    char other[256];
    int status;
    pid_t child = fork();

    if (child == 0)
        _exit(place_make(dir, "edge", true, &p, &c) >= 0 ? 0 : 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    p = (struct place){ .pid = child };
    snprintf(p.path, sizeof p.path, "%s/edge.%d.sock", dir, (int)child);
    assert_int_equal(access(p.path, F_OK), 0);
    snprintf(other, sizeof other, "%s/note.txt", dir);
    FILE *f = fopen(other, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(place_find(dir, "edge", &mine, &c), -ESRCH);
    int fd = place_make(dir, "edge", true, &mine, &c);
    assert_true(fd >= 0);
    assert_int_equal(access(p.path, F_OK), -1);
    assert_int_equal(access(other, F_OK), 0);
    close(fd);
    unlink(mine.path);
    unlink(other);
}

static void bad_directories(void **state)
{
    struct place p;
    char longer[200];

    assert_int_equal(place_make("/nowhere/at/all", "edge", true, &p, &c), -ENOENT);
    snprintf(longer, sizeof longer, "%s/%0100d", dir, 1);
    assert_int_equal(place_make(longer, "edge", true, &p, &c), -ENAMETOOLONG);
    rmdir(longer);
}

static int setup(void **state)
{
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(finding),
        cmocka_unit_test(leftovers),
        cmocka_unit_test(bad_directories),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
