#!/bin/busybox sh
# shellcheck shell=dash
# A real WARN, which the splat scan has to find
echo WARNING >/sys/kernel/debug/provoke-crash/DIRECT
