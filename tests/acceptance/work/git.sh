# A history with branches, merges and renames; packed, cloned, checked, archived.
git --version
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=c GIT_COMMITTER_EMAIL=c@example.org
export GIT_CONFIG_NOSYSTEM=1 GIT_PAGER=cat
git init -q -b main tree && cd tree
git config pack.threads 1
i=0
while [ $i -lt 60 ]; do
  export GIT_AUTHOR_DATE="$((1700000000 + i * 60)) +0000" GIT_COMMITTER_DATE="$((1700000000 + i * 60)) +0000"
  mkdir -p folder-$((i % 7))
  seq $i $((i + 500)) > folder-$((i % 7))/file-$((i % 23))
  seq $((i * 3)) > notes-$((i % 5))
  git add -A && git commit -q -m "change $i"
  if [ $((i % 15)) = 7 ]; then git branch side-$i; fi
  if [ $((i % 15)) = 12 ]; then
    git checkout -q side-$((i - 5)) && echo "$i" > side-file-$i && git add -A && git commit -q -m "side $i" && git checkout -q main
    git merge -q --no-edit side-$((i - 5)) -m "merge $i"
  fi
  i=$((i + 1))
done
git mv folder-3 renamed && git commit -q -m "rename"
git log --format='%H %T %s' | sha256sum
git log --graph --oneline | tail -n 5
git diff --stat HEAD~20 | tail -n 3; git diff HEAD~30 | sha256sum; git log -p --find-renames | sha256sum
git blame renamed/file-3 | sha256sum
git count-objects | cut -d' ' -f1
git gc -q; { git fsck --full 2>&1 | grep -v dangling || true; }; git count-objects -v | grep -e in-pack -e packs -e count
git archive HEAD | sha256sum; git bundle create -q ../bundle --all && git bundle verify -q ../bundle && echo bundle
cd .. && git clone -q --no-local file://$PWD/tree copy && git -C copy log --format=%H | sha256sum && git -C copy status --short | wc -l
git -C copy checkout -q HEAD~15 && find copy -path copy/.git -prune -o -type f -print | LC_ALL=C sort | xargs sha256sum | sha256sum
git -C copy rev-list --objects --all | sha256sum; git -C copy grep -c 123 | sha256sum
