// A disk from what a user says of it.
#pragma once
#include "block/disk/disk.h"

namespace bulkhead::block {

struct DiskConfig {
  std::string path{};
  bool read_only = false;
  std::string
      format{};  // empty: "qcow2" for a name that ends so, else "raw"; never by content, which a guest may write
  std::string key_file{}, backing_key_file{};  // of encrypted images
  bool direct = false;                         // past the host's page cache
  bool discard = true;                         // gives back to the host what the guest discards
  IoEngineKind engine = IoEngineKind::kAuto;
  DiskOptions options{};
};

// "FILE" or "FILE,key=value,...": ro, format=, cache=, direct=, discard=, aio=, serial=, werror=, rerror=, bps=,
// bps-rd=, bps-wr=, iops=, iops-rd=, iops-wr= and each of these with -burst. Errors: what is not understood, by name.
Result<DiskConfig> parse_disk(const std::string& text);
// The same for a file whose name is known: "key=value,..." into `config`.
Result<void> parse_disk_options(DiskConfig& config, std::string_view options);
// Limits alone; those that are not named are none.
Result<ThrottleLimits> parse_limits(const std::string& text);

// Opens the image with all that is below it, on a thread of its own. Blocks. Errors: as Opener::open.
Result<std::unique_ptr<Disk>> open_disk(const DiskConfig& config);

}  // namespace bulkhead::block
