// The protocol between the monitor and the agent in the zone: frames over one virtio-console port, with credits.
//
// A frame is 8 bytes of header and `length` bytes of payload, little endian:
//   u32 length (0..kMaxPayload)   u8 type   u8 stream   u16 zero
// Either side ends the session on the first frame that is not exactly as described here.
//
// Flow control: the sender of a stream starts with kWindow bytes of credit, spends one per data byte, and gets more by
// kCredit frames as the receiver passes the bytes on. So a stream whose reader has stopped holds up nothing else, and
// no side ever stores more than kWindow bytes of a stream.
//
// The course of a session: agent kHello -> monitor kConfigure* kStart -> agent kStarted (or kFailed) -> data both ways
// -> agent kEndOfStream for stdout and stderr, then kExited. After kExited the agent has synced the disks and waits to
// be switched off; it powers off by itself when nothing happens.
#pragma once
#include <cstddef>
#include <cstdint>

namespace bulkhead::agent {

inline constexpr char kPortName[] = "dev.bulkhead.agent";
// Where there is no virtio: a directory in the zone's part of xenstore, which the monitor makes [xen/io/libxenvchan.h].
inline constexpr char kXenDirectory[] = "data/bulkhead/agent";
// Where a zone with its root in memory has the pod agent (guest/pod).
inline constexpr char kPodAgent[] = "/bin/bulkhead-pod-agent";
inline constexpr std::uint32_t kMagic = 0x62'68'64'01;  // in kHello
inline constexpr std::uint32_t kProtocolVersion = 2;
inline constexpr std::uint32_t kHeaderSize = 8;
inline constexpr std::uint32_t kMaxPayload = 32 * 1024 - kHeaderSize;  // a frame fits the guest driver's largest write
inline constexpr std::uint32_t kWindow = 256 * 1024;                   // bytes of credit at the start of each stream
inline constexpr std::uint32_t kMaxStartRequest = 1024 * 1024;         // all kConfigure payloads together
inline constexpr std::uint32_t kMaxText = 512;                         // a kFailed message

enum class FrameType : std::uint8_t {
  // Monitor to agent.
  kConfigure = 1,   // payload: the next part of the start request
  kStart = 2,       // no payload: the start request is complete, run it
  kSignal = 3,      // payload: u32 signal number 1..64, for the command's process group
  kWindowSize = 4,  // payload: u16 columns, u16 rows
  // Both ways.
  kData = 8,         // payload: 1..kMaxPayload bytes of `stream`
  kEndOfStream = 9,  // no payload: no more data on `stream`
  kCredit = 10,      // payload: u32 bytes 1..kWindow of credit for `stream`
  kAbandon = 11,     // no payload: the receiver will never read `stream` again; the sender stops sending it
  // Agent to monitor.
  kHello = 16,    // payload: u32 kMagic, u32 kProtocolVersion
  kStarted = 17,  // no payload: the command's execve succeeded
  kExited = 18,   // payload: u32 how (ExitKind), u32 code 0..255 or signal 1..64
  kFailed = 19,   // payload: u32 stage (FailStage), u32 errno, then text of 0..kMaxText bytes
};

enum class Stream : std::uint8_t { kInput = 0, kOutput = 1, kError = 2 };
inline constexpr unsigned kStreams = 3;

enum class ExitKind : std::uint32_t { kCode = 0, kSignal = 1 };
enum class FailStage : std::uint32_t {
  kZone = 0,     // the zone could not be set up: no root file system, a bad request, ...
  kCommand = 1,  // execve of the command failed: errno says whether it is missing or not executable
};

}  // namespace bulkhead::agent
