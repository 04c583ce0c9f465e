# bh_proto(TARGET ROOT FILES...): a library of the messages in FILES, which lie below ROOT and import each other by their
# paths from there. Made for the lite runtime: no descriptors, no reflection.
function(bh_proto target root)
  set(out ${CMAKE_BINARY_DIR}/proto)
  file(MAKE_DIRECTORY ${out})
  set(sources)
  list(TRANSFORM ARGN PREPEND ${root}/ OUTPUT_VARIABLE all)  # they import each other
  foreach(file ${ARGN})
    string(REGEX REPLACE "\\.proto$" "" stem ${file})
    list(APPEND sources ${out}/${stem}.pb.cc)
    add_custom_command(OUTPUT ${out}/${stem}.pb.cc ${out}/${stem}.pb.h
      COMMAND ${PROTOC} -I${root} --cpp_out=lite:${out} ${file}
      DEPENDS ${all} VERBATIM COMMENT "Making messages of ${file}")
  endforeach()
  add_library(${target} STATIC ${sources})
  target_include_directories(${target} SYSTEM PUBLIC ${out})
  target_link_libraries(${target} PUBLIC PkgConfig::PROTOBUF_LITE)
endfunction()
