/* SPDX-License-Identifier: Apache-2.0 */
/* The closing report: the JSON is read back with a strict reader, the text is looked at line by line. */
#include "cli/progress.h"
#include "cli/report.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct report full(void)
{
    struct report r = {
        .nf = "own",
        .capture = true,
        .ended_by = "end of input",
        .seconds = 2.5,
        .ran = true,
        .engine = { .packets = 1234567,
                    .bytes = 987654321,
                    .forwarded = 1234000,
                    .not_ip = 3,
                    .other_proto = 4,
                    .flows_opened = 55,
                    .flows_peak = 12,
                    .events = 1000,
                    .waits = 900,
                    .stream_bytes = 77 },
        .store_url = "redis://localhost:6379",
        .store = { .requests = 2000,
                   .answers = 1990,
                   .timeouts = 10,
                   .connects = 3,
                   .p50 = 1500,
                   .p90 = 20000,
                   .p99 = 300000,
                   .p999 = NST_MS(4),
                   .max = NST_MS(50) },
        .reactor = { .stalls = 2, .guard = "madvise" },
        .n_ports = 1,
        .ports = { { "in.pcap", "capture", { .rx_packets = 1234567, .tx_packets = 1234000, .rx_missed = 9 } } },
        .module_text = strdup("  alerts  42\n  state kept   69.5\n  log\ta b.jsonl\n  ratio 0.25\n  odd  12x\n\n"),
    };
    r.engine.dropped[NST_BY_VERDICT] = 500;
    r.engine.dropped[NST_BY_STORE] = 67;
    r.engine.policy[NST_BY_STORE] = 67;
    return r;
}

static char *text_of(const struct report *r, int (*print)(const struct report *, FILE *))
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    assert_int_equal(print(r, out), 0);
    fclose(out);
    if (text == NULL)
        abort();
    return text;
}

static int print_text(const struct report *r, FILE *out)
{
    report_text(r, out);
    return 0;
}

static json_t *json_of(const struct report *r)
{
    char *text = text_of(r, report_json);
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);

    assert_non_null(root);
    free(text);
    return root;
}

static json_t *at(json_t *root, const char *path)
{
    char copy[128];

    strcpy(copy, path);
    for (char *word = strtok(copy, "/"); word != NULL; word = strtok(NULL, "/")) {
        root = json_is_array(root) ? json_array_get(root, (size_t)atoi(word)) : json_object_get(root, word);
        if (root == NULL)
            fail_msg("%s is not in the report", path);
    }
    return root;
}

static void json(void **state)
{
    struct report r = full();
    json_t *root = json_of(&r);
    static const struct {
        const char *path;
        long long n;
    } numbers[] = {
        { "engine/packets", 1234567 },  { "engine/forwarded", 1234000 }, { "engine/dropped/verdict", 500 },
        { "engine/dropped/store", 67 }, { "engine/policy/store", 67 },   { "engine/dropped/shutdown", 0 },
        { "engine/not_ip", 3 },         { "engine/other_proto", 4 },     { "engine/flows_opened", 55 },
        { "engine/waits", 900 },        { "engine/stream_bytes", 77 },   { "store/requests", 2000 },
        { "store/timeouts", 10 },       { "store/connects", 3 },         { "ports/0/rx_packets", 1234567 },
        { "ports/0/rx_missed", 9 },     { "reactor/stalls", 2 },         { "buffers/missing", 0 },
        { "module/alerts", 42 },
    };

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (json_integer_value(at(root, numbers[i].path)) != numbers[i].n)
            fail_msg("%s is %lld", numbers[i].path, (long long)json_integer_value(at(root, numbers[i].path)));
    assert_int_equal(json_object_size(at(root, "engine/dropped")), NST_CAUSES);
    assert_int_equal(json_object_size(at(root, "engine/policy")), NST_CAUSES);
    assert_true(json_real_value(at(root, "duration")) == 2.5);
    assert_true(json_real_value(at(root, "store/latency_us/p50")) == 1.5);
    assert_true(json_real_value(at(root, "store/latency_us/p999")) == 4000);
    assert_true(json_real_value(at(root, "store/latency_us/max")) == 50000);
    assert_string_equal(json_string_value(at(root, "input")), "capture");
    assert_string_equal(json_string_value(at(root, "ended_by")), "end of input");
    assert_true(json_is_null(at(root, "error")));
    assert_true(json_is_true(at(root, "buffers/whole")));
    assert_true(json_real_value(at(root, "module/state_kept")) == 69.5);
    assert_string_equal(json_string_value(at(root, "module/log")), "a b.jsonl");
    assert_true(json_real_value(at(root, "module/ratio")) == 0.25);
    assert_string_equal(json_string_value(at(root, "module/odd")), "12x");
    json_decref(root);
    report_free(&r);
}

/* While it works each core has a report of its own. */
static void json_of_several_cores(void **state)
{
    static const char *const alike[] = { "rules", "line *", NULL };
    struct report r = { .nf = "own", .n_cores = 3, .alike = alike };

    for (unsigned i = 0; i < 3; i++) {
        char text[200];
        snprintf(text, sizeof text, "  rules  11\n  packets  %u\n  line 4: drop  7\n  share  0.5\n  ends  3 kept\n%s",
                 i + 1, i == 2 ? "  late  9\n" : "");
        r.cores[i].module_text = strdup(text);
    }
    json_t *root = json_of(&r);
    assert_int_equal(json_integer_value(at(root, "module/packets")), 6);
    assert_int_equal(json_integer_value(at(root, "module/rules")), 11);
    assert_int_equal(json_integer_value(at(root, "module/late")), 9);
    assert_true(json_real_value(at(root, "module/share")) == 1.5);
    assert_int_equal(json_object_size(at(root, "module")), 5);
    json_t *line = NULL;
    const char *key;
    json_t *value;
    json_object_foreach(at(root, "module"), key, value) if (strncmp(key, "line", 4) == 0) line = value;
    assert_int_equal(json_integer_value(line), 7);
    assert_int_equal(json_integer_value(at(root, "cores/1/module/packets")), 2);
    assert_string_equal(json_string_value(at(root, "cores/2/module/ends")), "3 kept");
    json_decref(root);
    report_free(&r);
}

static void json_of_nothing(void **state)
{
    struct report r = { .nf = "own", .ended_by = "error", .error = "it \"broke\"\n\x01", .buffers_missing = 3 };
    json_t *root = json_of(&r);

    assert_true(json_is_null(at(root, "store")));
    assert_int_equal(json_array_size(at(root, "ports")), 0);
    assert_int_equal(json_object_size(at(root, "module")), 0);
    assert_string_equal(json_string_value(at(root, "error")), "it \"broke\"\n\x01");
    assert_string_equal(json_string_value(at(root, "input")), "live");
    assert_true(json_is_false(at(root, "buffers/whole")));
    assert_int_equal(json_integer_value(at(root, "buffers/missing")), 3);
    json_decref(root);
}

static void json_of_odd_bytes(void **state)
{
    struct report r = {
        .nf = "own", .ended_by = "error", .n_ports = 1, .ports = { { "b\xff\xfe.pcap", "capture", {} } }
    };
    json_t *root = json_of(&r);

    assert_string_equal(json_string_value(at(root, "ports/0/name")), "b??.pcap");
    json_decref(root);
}

static void json_cannot_be_written(void **state)
{
    struct report r = full();
    FILE *out = fopen("/dev/full", "w");

    assert_int_equal(report_json(&r, out), -ENOSPC);
    fclose(out);
    report_free(&r);
}

static void has(const char *text, const char *line)
{
    if (strstr(text, line) == NULL)
        fail_msg("not in the report: %s\n%s", line, text);
}

static void readable(void **state)
{
    struct report r = full();
    char *text = text_of(&r, print_text);

    has(text, "packets                          1,234,567   493827 a second\n");
    has(text, "forwarded                        1,234,000\n");
    has(text, "  not IP                                 3   passed unseen\n");
    has(text, "dropped                                567\n");
    has(text, "  verdict                              500\n");
    has(text, "policy decisions                        67\n");
    has(text, "  reconnects                             2\n");
    has(text, "p50 1.5us  p90 20us  p99 300us  p99.9 4ms  max 50ms\n");
    has(text, "port in.pcap                     1,234,567   received, 1234000 sent (capture)\n");
    has(text, "\nown\n  alerts                                  42\n");
    has(text, "  state kept                            69.5\n");
    has(text, "packet buffers                       whole\n");
    assert_null(strstr(text, nst_cause_name(NST_BY_SHUTDOWN)));
    assert_null(strstr(text, "evicted"));
    free(text);
    report_free(&r);
}

static void progress(void **state)
{
    char line[160];

    assert_string_equal(progress_line(line, sizeof line, 1000, 50, 200, NST_SEC(2)),
                        " 25 %  1000 packets, 50 read, 500 packets/s");
    assert_string_equal(progress_line(line, sizeof line, 7, 300, 200, 0), "100 %  7 packets, 300 read, 0 packets/s");
    assert_string_equal(progress_line(line, sizeof line, 10, 2048, 0, NST_SEC(1)), "10 packets, 2K read, 10 packets/s");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json),
        cmocka_unit_test(json_of_several_cores),
        cmocka_unit_test(json_of_nothing),
        cmocka_unit_test(json_of_odd_bytes),
        cmocka_unit_test(json_cannot_be_written),
        cmocka_unit_test(readable),
        cmocka_unit_test(progress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
