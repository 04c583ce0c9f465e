#include "zone/kernel/agent_image.h"

asm(".section .rodata\n"
    ".balign 16\n"
    "bulkhead_agent_start:\n"
    ".incbin \"" BULKHEAD_AGENT_PATH
    "\"\n"
    "bulkhead_agent_end:\n"
    ".byte 0\n"
    ".balign 16\n"
    "bulkhead_pod_agent_start:\n"
    ".incbin \"" BULKHEAD_POD_AGENT_PATH
    "\"\n"
    "bulkhead_pod_agent_end:\n"
    ".byte 0\n"
    ".text\n");

extern "C" const std::byte bulkhead_agent_start[], bulkhead_agent_end[];
extern "C" const std::byte bulkhead_pod_agent_start[], bulkhead_pod_agent_end[];

namespace bulkhead::zone {

std::span<const std::byte> agent_image() { return {bulkhead_agent_start, bulkhead_agent_end}; }
std::span<const std::byte> pod_agent_image() { return {bulkhead_pod_agent_start, bulkhead_pod_agent_end}; }

}  // namespace bulkhead::zone
