// A fresh PV domain: kernel, initrd, p2m list, start info, first page tables, in the guest's memory as Xen's domain
// builder leaves them [xen/xen.h "start-of-day memory layout"].
#pragma once
#include <string>

#include "abi/xen/pv/guest.h"

namespace bulkhead::abi::xen::pv {

struct BuildRequest {
  std::string kernel_path, initrd_path;  // initrd: may be empty
  std::string command_line;              // up to 1023 bytes
};

struct Built {
  Entry entry;
  u64 vm_assists = 0;                      // VMASST_TYPE_* that its notes ask for, a bit each
  u64 start_info_frame = 0;                // machine frames
  u64 store_frame = 0, console_frame = 0;  // their ring pages
  std::string description;                 // of the kernel
};

// Tells the guest its event channels for xenstore and console.
void set_ports(const Built& built, const GuestMemory& machine, u32 store_port, u32 console_port);

// `memory` is the guest's and zero, seen from physical frame 0 on: RAM as `layout` has it is its first range. Before
// PageTables is made.
// Errors name the file: no Xen PV entry, not enough memory (with how much it needs), initrd or command line too big.
Result<Built> build(const BuildRequest& request, const GuestMemory& physical, const Layout& layout);

}  // namespace bulkhead::abi::xen::pv
