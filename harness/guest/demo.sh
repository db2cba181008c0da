#!/bin/busybox sh
# shellcheck shell=dash
# The demo: see demo.c
exec ./demo
