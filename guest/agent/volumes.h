// The host's files in a zone, where the monitor and the agent must agree.
//
// All shares of a zone are one file system, with a folder (or file) for each share in its root. The agent mounts it at
// kFilesPlace before anything else runs, and binds volumes from there. A volume is "NAME ro|rw PATH": the share's name,
// what it may be used for, and its absolute place in the zone, to the end of the string.
#pragma once

namespace bulkhead::agent {

inline constexpr char kFilesTag[] = "bulkhead";  // of the virtio-fs device
inline constexpr char kFilesPlace[] = "/run/bulkhead/files";
// Where there is no virtio: a second channel, on which FUSE messages come one behind the other [linux fuse.h].
inline constexpr char kXenFilesDirectory[] = "data/bulkhead/files";
// On the kernel command line: "bulkhead.files=virtiofs" or "bulkhead.files=channel"; not there: no files.
inline constexpr char kFilesWord[] = "bulkhead.files";

}  // namespace bulkhead::agent
