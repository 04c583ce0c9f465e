#include "machine/microvm/microvm.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "block/disk/disk.h"
#include "block/null/null_node.h"
#include "device/console_backend.h"
#include "machine/microvm/layout.h"
#include "spec/acpi.h"
#include "spec/acpi_ports.h"
#include "spec/multiboot.h"
#include "spec/pvh.h"
#include "tests/support/fake_engine.h"
#include "tests/support/kernel_images.h"

namespace bulkhead::machine {
namespace {
using bulkhead::testing::FakeEngine;
using bulkhead::testing::FakePartition;
using bulkhead::testing::ImageBytes;
using Kind = Outcome::Kind;

// What a backend was given; takes everything.
struct Recorder final : device::ConsoleBackend {
  std::size_t write(std::span<const std::byte> data) override {
    text.append(reinterpret_cast<const char*>(data.data()), data.size());
    return data.size();
  }
  std::size_t read(std::span<std::byte>) override { return 0; }
  void set_callbacks(std::function<void()>, std::function<void()>) override {}
  std::string text;
};

struct MicrovmTest : ::testing::Test {
  MicrovmTest() {
    std::string name = ::testing::TempDir() + "bulkhead-microvm-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    folder = name;
    config.memory_bytes = 32_MiB;
    config.kernel_path =
        file("kernel", bulkhead::testing::make_bzimage(bulkhead::testing::make_elf(bulkhead::testing::linux_like())));
    config.command_line = "quiet";
    config.rng = false;
  }
  ~MicrovmTest() override { std::filesystem::remove_all(folder); }

  std::string file(const std::string& name, const ImageBytes& bytes) {
    const std::string path = folder / name;
    std::ofstream{path, std::ios::binary}.write(reinterpret_cast<const char*>(bytes.data()),
                                                static_cast<std::streamsize>(bytes.size()));
    return path;
  }
  ImageBytes multiboot_kernel() {
    bulkhead::testing::ElfRecipe recipe{false,
                                        spec::elf::kMachine386,
                                        0x100020,
                                        {{0x1000, 0x100000, 0, bulkhead::testing::pattern(0x3000, 1), 0x1000}},
                                        {}};
    ImageBytes bytes = bulkhead::testing::make_elf(recipe);
    bulkhead::testing::put(bytes, 0x1000, bulkhead::testing::multiboot_header(3));
    return bytes;
  }
  Result<std::unique_ptr<Microvm>> create() { return Microvm::create(engine, config); }
  // The machine stays until the next one: the fake partition and the memory are its.
  bool start() {
    auto made = create();
    EXPECT_TRUE(made) << made.error().message;
    if (made) machine = std::move(*made);
    return made.has_value();
  }
  std::string error() {
    const auto made = create();
    return made ? "" : made.error().message;
  }
  // Runs a guest whose first vCPU does what `script` says and stops behind it.
  Outcome run(std::function<void(FakePartition&)> script) {
    then = std::move(script);
    if (!start()) return {};
    partition->fake(0).then_look([&](const engine::Exit&) { machine->stop(); });
    return machine->run();
  }

  std::filesystem::path folder;
  Recorder console, debug;
  MicrovmConfig config;
  FakePartition* partition = nullptr;
  GuestMemory* memory = nullptr;
  std::function<void(FakePartition&)> then = [](FakePartition&) {};
  FakeEngine engine{[this](FakePartition& made, GuestMemory& ram) {
    partition = &made;
    memory = &ram;
    then(made);
  }};
  std::unique_ptr<Microvm> machine;
};

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(MicrovmTest, FirstVcpuStandsAtThePvhEntry) {
  ASSERT_TRUE(start());
  EXPECT_EQ(machine->kernel_description(), "bzImage 6.1.0-test (lz4), PVH entry");
  const engine::VcpuState& state = partition->fake(0).state_now;
  EXPECT_EQ(state.rip, 0x1000040u);
  const auto start = memory->load<spec::pvh::StartInfo>(Gpa{state.gpr[3]});
  ASSERT_TRUE(start);
  EXPECT_EQ(start->magic, spec::pvh::kMagic);
  EXPECT_EQ(memory->load<u64>(Gpa{start->rsdp}), 0x2052545020445352u);  // "RSD PTR "
  EXPECT_EQ(engine.last_config.cpu_model.name, "host");
}

TEST_F(MicrovmTest, MemoryAbove4GiBIsInTheMap) {
  config.memory_bytes = 4_GiB;
  ASSERT_TRUE(start());
  const auto start = memory->load<spec::pvh::StartInfo>(Gpa{partition->fake(0).state_now.gpr[3]});
  std::vector<u64> ends;
  for (u64 i = 0; i < start->memory_map_entries; ++i) {
    const auto entry = memory->load<spec::pvh::MapEntry>(Gpa{start->memory_map + i * 24});
    ends.push_back(entry->address + entry->size);
  }
  EXPECT_EQ(ends, (std::vector<u64>{0x9fc00, 0x100000, 0xC0000000, 0xFF000000, 0x140000000}));
}

TEST_F(MicrovmTest, InitrdLiesAsHighAsItCan) {
  const ImageBytes content = bulkhead::testing::pattern(5000, 4);
  config.initrd_path = file("initrd", content);
  ASSERT_TRUE(start());
  const auto start = memory->load<spec::pvh::StartInfo>(Gpa{partition->fake(0).state_now.gpr[3]});
  const auto module = memory->load<spec::pvh::Module>(Gpa{start->modules});
  EXPECT_EQ(module->address, 32_MiB - 8192);
  EXPECT_EQ(module->size, 5000u);
  EXPECT_EQ(std::memcmp(memory->host(Gpa{module->address}, 5000), content.data(), 5000), 0);
}

TEST_F(MicrovmTest, InitrdThatDoesNotFitSaysNumbers) {
  config.initrd_path = file("initrd", ImageBytes(16_MiB));
  const std::string text = error();
  EXPECT_SAYS(text, config.initrd_path);
  EXPECT_SAYS(text, "does not fit");
  EXPECT_SAYS(text, "16777216 bytes");
  config.initrd_path = folder / "missing";
  EXPECT_SAYS(error(), "cannot open the initrd");
  config.initrd_path = file("empty", {});
  EXPECT_SAYS(error(), "is empty");
}

TEST_F(MicrovmTest, CountsOutOfRange) {
  config.vcpus = 0;
  EXPECT_SAYS(error(), "0 vCPUs are out of range");
  config.vcpus = 9;
  EXPECT_SAYS(error(), "9 vCPUs are out of range");
  config.vcpus = 1;
  for (const u64 bytes : {u64{0}, u64{1_MiB}, ~u64{0}, u64{1_GiB * 1024}}) {
    config.memory_bytes = bytes;
    EXPECT_SAYS(error(), "memory are out of range");
  }
  config.memory_bytes = 32_MiB + 1;
  EXPECT_SAYS(error(), "whole number of pages");
}

TEST_F(MicrovmTest, UnknownCpuModelAndKernelAreErrors) {
  config.cpu_model = "z80";
  EXPECT_SAYS(error(), "z80");
  config.cpu_model = "host";
  config.kernel_path = "/nonexistent";
  EXPECT_SAYS(error(), "/nonexistent");
}

TEST_F(MicrovmTest, ModulesAreForMultiboot) {
  config.modules = {file("module", bulkhead::testing::pattern(100, 1)) + " arg=1"};
  EXPECT_SAYS(error(), "only Multiboot kernels take them");
  config.kernel_path = file("mb", multiboot_kernel());
  ASSERT_TRUE(start());
  EXPECT_EQ(machine->kernel_description(), "ELF32, Multiboot entry");
  const auto info = memory->load<spec::multiboot::Info>(Gpa{partition->fake(0).state_now.gpr[3]});
  ASSERT_EQ(info->module_count, 1u);
  const auto module = memory->load<spec::multiboot::Module>(Gpa{info->modules});
  EXPECT_EQ(module->start, 0x104000u);  // behind the kernel
  EXPECT_EQ(module->end - module->start, 100u);
  config.modules = {"/nonexistent a b"};
  EXPECT_SAYS(error(), "the module /nonexistent");
}

TEST_F(MicrovmTest, LinuxProtocolOnRequest) {
  config.protocol = BootProtocol::kLinux64;
  ASSERT_TRUE(start());
  EXPECT_EQ(partition->fake(0).state_now.efer, 0x500u);
  config.protocol = BootProtocol::kMultiboot;
  EXPECT_SAYS(error(), "no Multiboot header");
}

TEST_F(MicrovmTest, EveryWayToPowerOff) {
  using namespace spec::acpi;
  EXPECT_EQ(run([](auto& p) { p.fake(0).out(kPm1ControlPort, 5 << 10 | kPm1SleepEnable, 2); }).kind, Kind::kPowerOff);
  EXPECT_EQ(run([](auto& p) { p.fake(0).out(kSleepControlPort, kSleepTypeS5 << 2 | kSleepEnable); }).kind,
            Kind::kPowerOff);
}

TEST_F(MicrovmTest, EveryWayToReset) {
  using namespace spec::acpi;
  EXPECT_EQ(run([](auto& p) { p.fake(0).out(kResetPort, kResetValue); }).kind, Kind::kReset);
  EXPECT_EQ(run([](auto& p) { p.fake(0).out(kKeyboardCommandPort, kKeyboardPulseReset); }).kind, Kind::kReset);
}

TEST_F(MicrovmTest, TestDevicesOnlyWhenAsked) {
  const auto script = [](auto& p) {
    p.fake(0).out(0xe9, 'h');
    p.fake(0).out(0xe9, 'i');
    p.fake(0).out(0xf4, 3);
  };
  EXPECT_EQ(run(script).kind, Kind::kStopped);
  config.debugcon = &debug;
  config.debug_exit = true;
  const Outcome outcome = run(script);
  EXPECT_EQ(outcome.kind, Kind::kDebugExit);
  EXPECT_EQ(outcome.status, 7);
  EXPECT_EQ(debug.text, "hi");
}

TEST_F(MicrovmTest, UartReachesItsFarEnd) {
  config.uart = &console;
  run([](auto& p) {
    for (const char c : std::string_view{"boot\n"}) p.fake(0).out(0x3f8, static_cast<u8>(c));
  });
  EXPECT_EQ(console.text, "boot\n");
}

TEST_F(MicrovmTest, VirtioDevicesAreWhereAcpiSaysThem) {
  config.rng = true;
  config.console_ports = {{"", &console, true}};
  u64 magic[3], type[3];
  run([&](FakePartition& p) {
    for (unsigned i = 0; i < 3; ++i) {
      p.fake(0).load(0xd0000000 + i * 0x1000, 4, magic[i]);
      p.fake(0).load(0xd0000008 + i * 0x1000, 4, type[i]);
    }
  });
  EXPECT_EQ(magic[0], 0x74726976u);
  EXPECT_EQ(type[0], 3u);  // console
  EXPECT_EQ(magic[1], 0x74726976u);
  EXPECT_EQ(type[1], 4u);            // rng
  EXPECT_EQ(magic[2], 0xffffffffu);  // nobody
}

TEST_F(MicrovmTest, UartInterruptReachesIoApicAndPic) {
  std::vector<Msi> sent;
  u64 irr = 0;
  run([&](FakePartition& p) {
    auto& v = p.fake(0);
    // IOAPIC pin 4: vector 0x31, edge, to APIC 0. PIC: unmask IRQ 4, edge, vectors from 0x20.
    v.store(0xfec00000, 0x10 + 2 * 4);
    v.store(0xfec00010, 0x31);
    for (const auto& [port, value] :
         std::vector<std::pair<u16, u8>>{{0x20, 0x11}, {0x21, 0x20}, {0x21, 4}, {0x21, 1}, {0x21, 0xef}})
      v.out(port, value);
    v.out(0x3fc, 8);  // OUT2
    v.out(0x3f9, 2);  // interrupt when the transmitter is empty
    v.in(0x20, 1, irr);
    v.then_look([&](const engine::Exit&) {
      sent = p.sent();
      EXPECT_TRUE(p.extint());
      EXPECT_EQ(p.extint_source()->acknowledge(), 0x24);
      EXPECT_FALSE(p.extint());
    });
  });
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].address & 0xfffff000, 0xfee00000u);
  EXPECT_EQ(sent[0].data & 0xff, 0x31u);
  EXPECT_EQ(irr & 0x10, 0x10u);
}

TEST_F(MicrovmTest, EndOfInterruptResendsALevelThatStays) {
  std::size_t before = 0, after = 0;
  run([&](FakePartition& p) {
    auto& v = p.fake(0);
    v.store(0xfec00000, 0x10 + 2 * 4);
    v.store(0xfec00010, 0x8031);  // level
    v.out(0x3fc, 8);
    v.out(0x3f9, 2);
    v.then_look([&](const engine::Exit&) {
      before = p.sent().size();
      p.end_of_interrupt(0x31);
      after = p.sent().size();
    });
  });
  EXPECT_EQ(before, 1u);
  EXPECT_EQ(after, 2u);
}

TEST_F(MicrovmTest, TooManyVirtioDevices) {
  // One disk stands for all.
  auto executor = std::move(*block::Executor::create());
  auto node = std::make_shared<block::NullNode>(*executor, block::NullOptions{.access = block::DiskAccess::kReadOnly});
  const auto disk = std::move(*block::Disk::create(std::move(executor), std::move(node)));
  config.disks.assign(16, disk.get());
  EXPECT_EQ(error(), "");
  config.disks.assign(17, disk.get());
  EXPECT_SAYS(error(), "room for 16 virtio devices");
}

TEST_F(MicrovmTest, ExitsAreCountedAndTimed) {
  then = [](FakePartition& p) {
    for (int i = 0; i < 10; ++i) p.fake(0).out(0x80, 1);
    p.fake(0).forever(engine::HaltExit{});
  };
  ASSERT_TRUE(start());
  EXPECT_EQ(machine->run().kind, Kind::kHalted);
  for (const ExitStatistics& s : machine->exit_statistics())
    if (s.kind == "port") {
      EXPECT_EQ(s.count, 10u);
      EXPECT_LE(s.p50_ns, s.p99_ns);
    }
  bool found = false;
  for (const auto& [name, value] : machine->engine_counters())
    if (name == "unclaimed_port_accesses") found = value == 10;
  EXPECT_TRUE(found);
}

// A guest that touches every port and the whole device hole with every width, on a machine with every device.
TEST_F(MicrovmTest, EveryPortAndTheHoleWithEveryWidth) {
  config.rng = true;
  config.uart = config.debugcon = &debug;
  config.console_ports = {{"", &console, true}, {"agent", &console, false}};
  EXPECT_NE(run([](FakePartition& p) {
              auto& v = p.fake(0);
              for (const u8 size : {u8{1}, u8{2}, u8{4}})
                for (u32 port = 0; port < 0x1000; ++port) {
                  v.then(engine::PortExit{static_cast<u16>(port), size, false, 0});
                  v.then(engine::PortExit{static_cast<u16>(port), size, true, 0x5a5a5a5a});
                }
              for (const u8 size : {u8{1}, u8{2}, u8{4}, u8{8}})
                for (u64 at = 0xcffffff0; at < 0xd0003010; at += 1) {
                  v.then(engine::MmioExit{Gpa{at}, size, false, 0});
                  v.then(engine::MmioExit{Gpa{at}, size, true, 0xa5a5a5a5a5a5a5a5});
                }
              for (u64 at = 0xfec00000; at < 0xfec00100; ++at) v.then(engine::MmioExit{Gpa{at}, 4, true, ~u64{0}});
            }).kind,
            Kind::kEngineFailure);
}

}  // namespace
}  // namespace bulkhead::machine
