// What each command does. Every function returns our exit status and has said on stderr what went wrong.
#pragma once
#include "base/clock.h"
#include "control/options.h"
#include "zone/store/tool.h"

namespace bulkhead::control {

inline constexpr int kBulkheadFailed = 125;

struct Surroundings {
  zone::Workshop& workshop;
  Nanoseconds process_start;
};

int run_command(const RunCommand& command, Surroundings& around);
int boot_command(const BootCommand& command, Surroundings& around);
int host_command(const HostCommand& command);
int node_command(const NodeCommand& command, Surroundings& around);
int kernel_fetch_command(const KernelFetchCommand& command, Surroundings& around);
int kernel_list_command(const KernelListCommand& command);
int zone_list_command(const ZoneListCommand& command);
int disk_command(const DiskCommand& command, Surroundings& around);
int image_command(const ImageVerbCommand& command, Surroundings& around);
int net_command(const NetCommand& command, Surroundings& around);
int zone_ask_command(const ZoneAskCommand& command, Surroundings& around);

// One line on stderr; returns kBulkheadFailed, or 128+n when signal n is why we are ending.
int say_failure(const Error& error, Surroundings& around);
void print(std::string_view text);  // on stdout, whole

}  // namespace bulkhead::control
