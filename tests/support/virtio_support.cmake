# bh_virtio_support: what plays the guest in the tests of virtio devices.
include_guard(GLOBAL)
add_library(bh_virtio_support STATIC
  ${CMAKE_CURRENT_LIST_DIR}/virtqueue_driver.cc
  ${CMAKE_CURRENT_LIST_DIR}/virtio_guest.cc
  ${CMAKE_CURRENT_LIST_DIR}/hostile_guest.cc)
target_include_directories(bh_virtio_support PUBLIC ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/tests)
target_link_libraries(bh_virtio_support PUBLIC bh_virtio_mmio bh_virtio_queue PRIVATE bh_warnings)
