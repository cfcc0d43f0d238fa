#!/usr/bin/env python3
"""A real Ray cluster of several nodes on one machine, closed by a token. See README.md beside this file.

Each node is a Ray node of its own (raylet, object store, workers): in a network namespace where root is available, so
that nodes can be cut off, else beside the others on one address. The head has no CPUs: trials run on the other nodes.
"""

import argparse
import os
import sys
from pathlib import Path

from machines import LocalClusterError
from nodes import Cluster

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A real Ray cluster of several nodes on one machine.")
    parser.add_argument("--dir", type=Path, default=Path("runs/cluster"), help="directory of the cluster")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the head and the nodes")
    up.add_argument("--nodes", type=int, default=3, help="nodes beside the head")
    up.add_argument("--cpus", type=int, default=1, help="CPUs that each of them offers")
    up.add_argument("--loopback", action="store_true", help="no namespaces, also where they could be made")
    commands.add_parser("add", help="start one node more").add_argument("--cpus", type=int, default=1)
    for command, text in (
        ("kill", "SIGKILL all processes of a node"),
        ("cut", "pull a node's network cable"),
        ("join", "plug it in again"),
    ):
        commands.add_parser(command, help=text).add_argument("node", metavar="NODE")
    run = commands.add_parser("run", help="run a command on a node, with the cluster's address and token")
    run.add_argument("--node", default="head", metavar="NODE")
    run.add_argument("words", nargs="+", metavar="-- COMMAND")
    commands.add_parser("status", help="list the nodes")
    commands.add_parser("down", help="end everything, and remove it")
    return parser


def _do(cluster: Cluster, asked: argparse.Namespace) -> None:
    match asked.command:
        case "up":
            cluster.up(asked.nodes, asked.cpus, asked.loopback)
        case "add":
            print(cluster.add(asked.cpus).name)
        case "kill":
            cluster.kill(asked.node)
        case "cut" | "join":
            cluster.connect(asked.node, connected=asked.command == "join")
        case "run":
            words = cluster.command(asked.node, asked.words)
            os.execvpe(words[0], words, cluster.environment())  # its signals and its exit code are the caller's
        case "down":
            cluster.down()
    if asked.command in ("up", "status"):
        for node in cluster.nodes.values():
            state = "cut off" if node.cut else "up" if node.alive else "dead"
            print(f"{node.name:8} {node.address:12} process {node.pid:<8} {state}")


def main() -> int:
    """Do what the command line says; an error is a sentence and exit code 1."""
    asked = _parser().parse_args()
    try:
        _do(Cluster(asked.dir), asked)
    except (LocalClusterError, OSError) as error:
        print(f"cluster.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
