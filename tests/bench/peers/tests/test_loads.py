"""Reading what the tools say."""

import unittest

from peers.loads import milliseconds, read_h2load, read_wrk
from peers.processes import Failed

WRK = """\
Running 2s test @ http://127.0.0.1:19000/
  1 threads and 16 connections
  Latency Distribution
     50%  310.00us
     75%  400.00us
     99%    1.20ms
  10000 requests in 2.00s, 11.00MB read
  Socket errors: connect 0, read 1, write 0, timeout 2
  Non-2xx or 3xx responses: 4
Requests/sec:   5000.00
"""
H2LOAD = """\
finished in 2.00s, 100.00 req/s, 9.60KB/s
requests: 203 total, 205 started, {done} done, {done} succeeded, 0 failed, 0 errored, 0 timeout
status codes: {good} 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 22.00KB (22528) total, 4.94KB (5054) headers (space savings 91.51%), 12.50KB ({data}) data
                     min         max         mean         sd        +/- sd
time for request:     1.26ms    227.00ms      1.91ms     10.09ms    99.80%
"""


class Wrk(unittest.TestCase):
    """`wrk --latency`."""

    def test_requests_errors_and_quantiles(self) -> None:
        done = read_wrk(WRK)
        self.assertEqual((done.units, done.bad), (10000, 7))
        self.assertEqual(done.values, {"p50": 0.31, "p99": 1.2, "rate": 5000.0})

    def test_a_failure_is_told(self) -> None:
        with self.assertRaises(Failed):
            read_wrk("unable to connect to 127.0.0.1:19000")


class H2load(unittest.TestCase):
    """`h2load`."""

    def test_requests_per_second_and_mean(self) -> None:
        done = read_h2load(H2LOAD.format(done=200, good=200, data=200 * 64), 64, 2)
        self.assertEqual((done.units, done.bad), (200, 0))
        self.assertEqual(done.values, {"rate": 100.0, "mean": 1.91})

    def test_answers_without_a_body_are_not_good(self) -> None:
        done = read_h2load(H2LOAD.format(done=200, good=200, data=150 * 64), 64, 2)
        self.assertEqual((done.units, done.bad), (150, 50))

    def test_an_answer_after_the_end_is_no_failure(self) -> None:
        self.assertEqual(read_h2load(H2LOAD.format(done=200, good=201, data=201 * 64), 64).bad, 0)


class Lengths(unittest.TestCase):
    """Lengths of time."""

    def test_units(self) -> None:
        self.assertEqual([milliseconds(text) for text in ("5us", "1.5ms", "2s", "1.5m")], [0.005, 1.5, 2000, 90000])
        with self.assertRaises(Failed):
            milliseconds("5 parsecs")


if __name__ == "__main__":
    unittest.main()
