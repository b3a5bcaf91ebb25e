"""make cost: what a certificate costs in a year, in calls, Lambda time and USD, from measured calls and dated prices.

    calls | python3 tools/cost.py

Read are what tests/src/calls.rs has counted, tools/prices.json, and of template.yaml how much its alarms look at.
"""

import json
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
YEAR = 365
SIZES = [10, 1_000, 100_000]
# Of a CA, and the days that its certificates last. A new pair is made in the last third.
MODES = [("general-purpose", 30), ("general-purpose", 90), ("general-purpose", 7), ("short-lived", 7)]


def main():
    measured = json.load(sys.stdin)
    with open(os.path.join(HERE, "prices.json")) as file:
        dated = json.load(file)
    rows = [("certificates", "CA", "days", "pairs", "calls", "GB-s", "CA USD", "issued", "secret", "watching", "the rest", "together")]
    for mode, days in MODES:
        for size in SIZES:
            rows.append(year(measured, dated, mode, days, size))
    print(f"Of each certificate and year; USD by list prices of {dated['region']} as of {dated['as_of']}:\n")
    table(rows)
    day, renewal = calls(measured["certificate_day"]), calls(measured["renewal"])
    print(f"\nMeasured calls: {day:.0f} a day for a certificate of which nothing is due, {renewal:.0f} for a renewal with the rollout\n"
          f"of one service, {calls(measured['stack_day']):.0f} a day for the stack itself.")
    print("\nEach operation, how often:\n")
    operations = sorted({name for part in measured.values() for name in part if ":" in name})
    table([("operation", "a day", "a renewal", "the stack, a day"), *(
        (name, *(count(measured[part].get(name, 0)) for part in ("certificate_day", "renewal", "stack_day"))) for name in operations)])


def year(measured, dated, mode, days, size):
    price = {name: entry.get("usd", entry.get("tiers")) for name, entry in dated["prices"].items()}
    assumed = {name: entry["value"] for name, entry in dated["assumptions"].items()}
    # A pair is replaced when two thirds of its life are over.
    renewals = YEAR / (days * 2 / 3)
    # What one certificate's share of everything is: its own days, its renewals, and its part of what the stack does anyway.
    share = {}
    for part, times in (("certificate_day", YEAR), ("renewal", renewals), ("stack_day", YEAR / size)):
        for name, number in measured[part].items():
            share[name] = share.get(name, 0) + number * times

    def of(pattern):
        return sum(number for name, number in share.items() if re.fullmatch(pattern, name))

    if mode == "short-lived":
        ca, issued = price["short_lived_ca_month"] * 12 / size, renewals * price["short_lived_certificate"]
    else:
        ca = price["general_purpose_ca_month"] * 12 / size
        issued = tiered(renewals * size / 12, price["general_purpose_certificate_by_month"]) * 12 / size
    invocations = of(r"\S+ invocations")
    gigabytes = {"everleaf-issue-client-cert": 0.5, "everleaf-refresh-truststore": 0.5}
    seconds = sum(gigabytes.get(name.split()[0], 0.25) * (number if name.endswith(" ms") else number * assumed["ms_per_invocation"]) / 1000
                  for name, number in share.items() if re.fullmatch(r"\S+ (ms|invocations)", name))
    secret = price["secret_month"] * 12
    metrics = assumed["metrics_of_the_stack"] + min(size, assumed["metrics_of_certificates"])
    watching = 12 / size * (metrics * price["metric_month"] + alarm_metrics() * price["alarm_metric_month"]
                            + price["dashboard_month"] + price["kms_key_month"])
    rest = (of("secretsmanager:.*") * price["secrets_manager_call"]
            + of("dynamodb:(Put|Update|Delete|Transact).*") * assumed["write_units_per_write"] * price["dynamodb_write_unit"]
            + of("dynamodb:(Get|BatchGet|Query).*") * assumed["read_units_per_read"] * price["dynamodb_read_unit"]
            + of("s3:(Put|List).*") * price["s3_write"] + of("s3:Get.*") * price["s3_read"]
            + share["events"] * price["event"] + YEAR * 25 / size * price["scheduled_invocation"]
            + invocations * (price["lambda_invocation"] + assumed["log_kb_per_invocation"] / 1e6 * price["log_gb"])
            + seconds * price["lambda_arm64_gb_second"])
    return (f"{size:,}", mode, str(days), f"{renewals:.1f}", f"{calls(share):,.0f}", f"{seconds:.0f}", f"{ca:,.2f}", f"{issued:.2f}",
            f"{secret:.2f}", f"{watching:.2f}", f"{rest:.3f}", f"{ca + issued + secret + watching + rest:,.2f}")


def alarm_metrics():
    """An alarm is paid for by the metrics that it looks at: one, or those of its expression."""
    with open(os.path.join(HERE, os.pardir, "template.yaml")) as file:
        template = file.read()
    alarms, expressions = template.count("Type: AWS::CloudWatch::Alarm\n"), template.count("{ Id: all, Expression: ")
    return alarms - expressions + template.count("MetricStat:\n")


def tiered(number, tiers):
    """What so many certificates of one month cost."""
    cost, below = 0, 0
    for up_to, usd in tiers:
        cost += max(0, min(number, up_to or number) - below) * usd
        below = up_to
    return cost


def calls(counts):
    return sum(number for name, number in counts.items() if ":" in name)


def count(number):
    return f"{number:.1f}".removesuffix(".0").replace("-0", "0")


def table(rows):
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(text.ljust(width) if place == 0 else text.rjust(width) for place, (text, width) in enumerate(zip(row, widths))))


if __name__ == "__main__":
    main()
