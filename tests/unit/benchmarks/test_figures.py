from __future__ import annotations

import os

from benchmarks.figures import Sample, Usage, count_server_writes, count_writes, means, parse_metrics, total

BEFORE = """\
# HELP requests_total Requests.
requests_total{verb="create",resource="mediarouters",code="201"} 3.0
requests_total{verb="get",resource="secrets",code="200"} 8.0
seconds_sum{verb="create",resource="mediarouters"} 1.0
seconds_count{verb="create",resource="mediarouters"} 3.0
apiserver_request_total{verb="POST",resource="mediarouters",code="201"} 5
plain_total 1e+03
"""
AFTER = """\
requests_total{verb="create",resource="mediarouters",code="201"} 13.0
requests_total{verb="create",resource="mediarouters",code="409"} 2.0
requests_total{verb="get",resource="secrets",code="200"} 80.0
requests_total{verb="update",resource="leases",code="200"} 7.0
requests_total{verb="patch",resource="mediasessions",code="200"} 5.0
seconds_sum{verb="create",resource="mediarouters"} 1.5
seconds_count{verb="create",resource="mediarouters"} 13.0
apiserver_request_total{verb="POST",resource="mediarouters",code="201"} 20
apiserver_request_total{verb="PATCH",resource="mediasessions",subresource="status"} 4
apiserver_request_total{verb="GET",resource="mediasessions"} 400
apiserver_request_total{verb="POST",resource="tokenreviews"} 9
plain_total 1e+03
"""


def test_parse() -> None:
    samples = parse_metrics(BEFORE)
    assert samples[0] == Sample(
        "requests_total", {"verb": "create", "resource": "mediarouters", "code": "201"}, 3.0
    )
    assert samples[-1] == Sample("plain_total", {}, 1000.0)


def test_writes_in_between() -> None:
    before, after = parse_metrics(BEFORE), parse_metrics(AFTER)
    counted = count_writes(before, after, "requests_total")
    assert counted == {"create mediarouters": 12, "patch mediasessions": 5}
    assert count_server_writes(before, after) == 19


def test_histograms_in_between() -> None:
    before, after = parse_metrics(BEFORE), parse_metrics(AFTER)
    assert total(before, after, "seconds") == 0.5
    assert means(before, after, "seconds") == {"create mediarouters": 50.0}


def test_usage_of_a_process() -> None:
    usage = Usage.of(os.getpid())
    assert usage.cpu > 0
    assert usage.peak >= usage.rss > 1
