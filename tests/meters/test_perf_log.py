"""What perf prints, in every form it was seen in, and what must be refused."""

import math
import shutil
import subprocess
from pathlib import Path

import pytest

from ipa_energy.errors import ConfigError
from ipa_energy.meters.imports.perf_log import parse_line, parse_perf_output, refusal

real_perf = pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not installed")

JSON_LINE = (
    '{{"counter-value" : "{value}", "unit" : "Joules", "event" : "power/{event}/", '
    '"event-runtime" : 202515718, "pcnt-running" : 100.00, '
    '"metric-value" : 0.000000, "metric-unit" : "(null)"}}\n'
)


def json_lines(**values):
    return "".join(
        JSON_LINE.format(value=value, event=f"energy-{name}") for name, value in values.items()
    )


TEXT = """\
the command's own words, 12.5 Joules of them

 Performance counter stats for 'system wide':

          1,234.56 Joules power/energy-pkg/
            100.44 Joules power/energy-ram/
            900.00 Joules power/energy-cores/

      10.002345678 seconds time elapsed

"""


def test_json_keeps_every_digit_and_adds_packages_and_memory_only():
    found = parse_perf_output(json_lines(pkg="12.345678", ram="1.5", cores="9.0", psys="20.0"))
    assert found.form == "json"
    assert found.domains() == {"package": 12.345678, "dram": 1.5}
    assert found.events() == ("energy-pkg", "energy-ram", "energy-cores", "energy-psys")
    assert math.isnan(found.duration_s)


def test_platform_is_used_where_it_is_alone():
    assert parse_perf_output(json_lines(psys="20.25")).domains() == {"psys": 20.25}


def test_recorded_dead_platform_event_stays_a_zero_for_the_caller_to_call_dead():
    recorded = {
        "json": '{"counter-value" : "0.000000", "unit" : "Joules", "event" : "power/energy-psys/", '
        '"event-runtime" : 202515718, "pcnt-running" : 100.00, "metric-value" : 0.000000, '
        '"metric-unit" : "(null)"}\n',
        "csv": "0.00,Joules,power/energy-psys/,202367408,100.00,,\n",
        "text": "              0.00 Joules power/energy-psys/\n",
    }
    for form, text in recorded.items():
        found = parse_perf_output(text)
        assert found.form == form
        assert found.domains() == {"psys": 0.0}


def test_text_has_its_duration():
    found = parse_perf_output(TEXT)
    assert found.form == "text"
    assert found.domains() == {"package": 1234.56, "dram": 100.44}
    assert found.duration_s == 10.002345678
    assert found.runs == 1


@pytest.mark.parametrize(
    "number",
    ["1234.56", "1,234.56", "1.234,56", "1 234,56", "1\u202f234,56", "1'234.56", "1234,56"],
)
def test_text_of_any_locale_is_told_by_its_two_decimals(number):
    text = TEXT.replace("1,234.56", number).replace("100.44", "100,44")
    assert parse_perf_output(text).domains() == {"package": 1234.56, "dram": 100.44}


def test_repeats_are_counted_and_their_mean_kept():
    text = (
        " Performance counter stats for 'make' (5 runs):\n\n"
        "     45.20 Joules power/energy-pkg/      ( +-  1.20% )\n\n"
        "    2.0011 +- 0.0034 seconds time elapsed  ( +-  0.17% )\n"
    )
    found = parse_perf_output(text)
    assert (found.runs, found.domains(), found.duration_s) == (5, {"package": 45.2}, 2.0011)


@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
def test_separated_values_with_any_separator(separator):
    rows = [
        ("12.50", "Joules", "power/energy-pkg/", "202367408", "100.00", "", ""),
        ("2.25", "Joules", "power/energy-ram/", "202367408", "100.00", "", ""),
        ("2000000000", "ns", "duration_time", "2000000000", "100.00", "", ""),
    ]
    found = parse_perf_output("".join(separator.join(row) + "\n" for row in rows))
    assert found.form == "csv"
    assert found.domains() == {"package": 12.5, "dram": 2.25}
    assert found.duration_s == 2.0


def test_sockets_and_intervals_add_up():
    by_socket = (
        '{"interval" : 1.000123, "socket" : "S0", "aggregate-number" : 1, "counter-value" : "5.0", '
        '"unit" : "Joules", "event" : "power/energy-pkg/"}\n'
        '{"interval" : 1.000123, "socket" : "S1", "aggregate-number" : 1, "counter-value" : "7.0", '
        '"unit" : "Joules", "event" : "power/energy-pkg/"}\n'
    )
    found = parse_perf_output(by_socket)
    assert [count.place for count in found.counts] == ["S0", "S1"]
    assert found.counts[0].time_s == 1.000123
    assert found.domains() == {"package": 12.0}
    csv = (
        "     1.001064062,S0,1,5.00,Joules,power/energy-pkg/,1001,100.00,,\n"
        "     1.001064062,S1,1,7.00,Joules,power/energy-pkg/,1001,100.00,,\n"
        "     2.002128124,S0,1,5.50,Joules,power/energy-pkg/,1001,100.00,,\n"
        "     2.002128124,S1,1,7.50,Joules,power/energy-pkg/,1001,100.00,,\n"
    )
    assert parse_perf_output(csv).domains() == {"package": 25.0}
    text = "S0        1            5.00 Joules power/energy-pkg/\n"
    assert parse_perf_output(text + text.replace("S0", "S1")).domains() == {"package": 10.0}
    timed = "     1.001064062               5.00 Joules power/energy-pkg/\n"
    assert parse_perf_output(timed).counts[0].time_s == 1.001064062


@pytest.mark.parametrize("problem", ["not supported", "not counted"])
@pytest.mark.parametrize(
    "line",
    [
        "<{}>,Joules,power/energy-psys/u,0,100.00,,\n",
        '{{"counter-value" : "<{}>", "unit" : "Joules", "event" : "power/energy-psys/u"}}\n',
        "   <{}> Joules power/energy-psys/u\n",
    ],
)
def test_what_was_not_counted_is_never_zero(line, problem):
    found = parse_perf_output(line.format(problem))
    assert found.domains() == {}
    assert found.problem_of("energy-psys") == problem
    assert math.isnan(found.energy_of("energy-psys"))


def test_one_socket_that_was_not_counted_spoils_the_sum():
    text = (
        "S0,1,5.00,Joules,power/energy-pkg/,1001,100.00,,\n"
        "S1,1,<not counted>,Joules,power/energy-pkg/,0,0.00,,\n"
    )
    found = parse_perf_output(text)
    assert math.isnan(found.energy_of("energy-pkg"))
    assert found.domains() == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no energy event"),
        ("hello\n", "no energy event"),
        ("  12.00 msec cpu-clock\n  0.5 seconds time elapsed\n", "no energy event"),
        ("0,00,Joules,power/energy-psys/,202367408,100,00,,\n", "cannot be told apart"),
        ("1,234,56,Joules,power/energy-pkg/,202367408,100,00,,\n", "cannot be told apart"),
        (JSON_LINE.format(value="1,5", event="energy-pkg"), "where perf prints a number"),
        (JSON_LINE.format(value="-1.5", event="energy-pkg"), "where perf prints a number"),
        (JSON_LINE.format(value="nan", event="energy-pkg"), "where perf prints a number"),
        (JSON_LINE.format(value="1.5", event="energy-pkg")[:90], "cannot be read"),
        (JSON_LINE.format(value="1.5", event="energy-pkg") + '{"coun', "ends within a line"),
        ("12.50,Joules,power/energy-pkg/\n", "cut off"),
        ("12.50,Joules,power/energy-pkg/,1,100.00,,\n2.25,Joules,power/ener\n", "names no event"),
        ("12.50,Joules,power/energy-pkg/,1,100.00,,\n2.25,Jou", "ends within a line"),
        ("  12 Joules power/energy-pkg/\n", "two decimals"),
        ("12.50,mJ,power/energy-pkg/,202367408,100.00,,\n", "mJ"),
        ("12.50,,power/energy-pkg/,202367408,100.00,,\n", "no unit"),
        ("Error:\nNo permission to enable power/energy-pkg/ event.\n", "denied"),
        (
            "event syntax error: 'power/energy-pkg/'\nunknown term 'energy-pkg'\n",
            "no energy counter",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(text, says):
    with pytest.raises(ConfigError, match=says) as caught:
        parse_perf_output(text, where="perf.log")
    assert "perf.log" in str(caught.value)


def test_the_commands_own_output_around_the_counts_is_passed_over():
    noise = "epoch 1: loss 0.25, 3 items\n{'a': 1}\n"
    text = noise + json_lines(pkg="3.5") + "1,2,3\n" + json_lines(ram="0.5") + "done\n"
    assert parse_perf_output(text).domains() == {"package": 3.5, "dram": 0.5}


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("Error:\nNo permission to enable power/energy-pkg/ event.\n", "denied"),
        ("Error:\nAccess to performance monitoring and observability operations is limited.\n",
         "denied"),
        ("event syntax error: 'power/energy-pkg/'\n                     \\___ unknown term "
         "'energy-pkg' for pmu 'power'\n", "absent"),
        ("event syntax error: 'power/energy-pkg/'\n  \\___ Cannot find PMU `power'. Missing kernel "
         "support?\n", "absent"),
        ("Workload failed: No such file or directory\n", None),
    ],
)  # fmt: skip
def test_perfs_reason_is_told_from_its_messages(text, state):
    assert refusal(text) == state


# ------------------------------------------------------------------ the real perf


@real_perf
@pytest.mark.parametrize("form", [["-j"], ["-x", ";"], []])
@pytest.mark.parametrize("interval", [[], ["-I", "50"]])
def test_every_form_of_the_real_perf_is_read(form, interval):
    done = subprocess.run(
        ["perf", "stat", "-a", *form, *interval, "-e", "cpu-clock", "--", "sleep", "0.12"],
        capture_output=True, text=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"perf may not count here: {done.stderr.strip()}")
    counts = [found[1] for found in map(parse_line, done.stderr.splitlines()) if found]
    assert len(counts) >= (3 if interval else 1) - 1
    assert all(count.unit == "msec" and count.event == "cpu-clock" for count in counts)
    # All CPUs were counted for as long as the command slept.
    assert sum(count.value for count in counts) >= 120


@real_perf
def test_the_real_perf_without_power_events_says_so_in_words_we_know():
    if Path("/sys/bus/event_source/devices/power/events/energy-pkg").exists():
        pytest.skip("this machine has power events")
    done = subprocess.run(
        ["perf", "stat", "-a", "-e", "power/energy-pkg/", "--", "true"],
        capture_output=True, text=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}, check=False,
    )  # fmt: skip
    assert done.returncode == 129
    assert refusal(done.stderr) == "absent"
