// Numbers of the qcow2 image format [qcow2 "General"], versions 2 and 3.
#pragma once
#include "base/ints.h"

namespace bulkhead::spec::qcow2 {

inline constexpr u32 kMagic = 0x514649fb;  // "QFI\xfb"
inline constexpr u32 kHeaderLength2 = 72, kHeaderLength3 = 104, kHeaderLengthCompression = 112;
inline constexpr u32 kMinClusterBits = 9, kMaxClusterBits = 21;
inline constexpr u32 kMaxRefcountOrder = 6;
inline constexpr u32 kMaxBackingName = 1023;

// Where header fields are [qcow2 "Header"].
namespace header {
inline constexpr unsigned kMagicAt = 0, kVersion = 4, kBackingOffset = 8, kBackingLength = 16, kClusterBits = 20,
                          kSize = 24, kCryptMethod = 32, kL1Size = 36, kL1Offset = 40, kRefcountTableOffset = 48,
                          kRefcountTableClusters = 56, kSnapshotCount = 60, kSnapshotsOffset = 64, kIncompatible = 72,
                          kCompatible = 80, kAutoclear = 88, kRefcountOrder = 96, kHeaderLength = 100,
                          kCompression = 104;
}

enum Incompatible : u64 {
  kDirty = 1 << 0,
  kCorrupt = 1 << 1,
  kExternalData = 1 << 2,
  kCompressionType = 1 << 3,
  kExtendedL2 = 1 << 4,
};
enum Compatible : u64 { kLazyRefcounts = 1 << 0 };
enum Autoclear : u64 { kBitmapsConsistent = 1 << 0, kRawExternalData = 1 << 1 };

enum class FeatureType : u8 { kIncompatible, kCompatible, kAutoclear };
enum class CompressionType : u8 { kDeflate = 0, kZstd = 1 };
enum CryptMethod : u32 { kNoCrypt = 0, kAesCrypt = 1, kLuksCrypt = 2 };

// Header extensions [qcow2 "Header extensions"].
inline constexpr u32 kExtensionEnd = 0, kExtensionBackingFormat = 0xe2792aca, kExtensionFeatureNames = 0x6803f857,
                     kExtensionBitmaps = 0x23852875, kExtensionEncryption = 0x0537be77, kExtensionDataFile = 0x44415441;
inline constexpr u32 kFeatureNameSize = 48;

// Table entries [qcow2 "Cluster mapping"].
inline constexpr u64 kCopied = u64{1} << 63, kCompressed = u64{1} << 62, kZero = 1;
inline constexpr u64 kOffsetMask = 0x00fffffffffffe00;
inline constexpr u64 kRefcountOffsetMask = ~u64{0x1ff};
inline constexpr unsigned kSubclusters = 32;  // of an extended L2 entry's cluster
inline constexpr u32 kMinExtendedClusterBits = 14;

// Bitmaps [qcow2 "Bitmaps"].
inline constexpr u32 kBitmapInUse = 1, kBitmapAuto = 2;
inline constexpr u8 kDirtyTrackingBitmap = 1;
inline constexpr u64 kBitmapAllOnes = 1;  // in a bitmap table's entry without an offset

}  // namespace bulkhead::spec::qcow2
