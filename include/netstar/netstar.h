/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/netstar.h - all of NetStar's public API. */
#pragma once
#include <netstar/base.h>
#include <netstar/cores.h>
#include <netstar/edit.h>
#include <netstar/engine.h>
#include <netstar/flow.h>
#include <netstar/future.h>
#include <netstar/module.h>
#include <netstar/packet.h>
#include <netstar/ports.h>
#include <netstar/reactor.h>
#include <netstar/state.h>
#include <netstar/store.h>
#include <netstar/task.h>
#include <netstar/tcp.h>
#include <netstar/timer.h>
