/**
 * Clones one repository, as a line of `sh`: a checkout is made in a folder beside its place and renamed, so that after
 * an end at any time it is either whole or not there. One that is there stays as it is.
 *
 * Prints the branch, which is empty for a detached HEAD, and the commit, which is empty where there is none.
 */
export const CLONE_SCRIPT = `set -eu
location=$1 mode=$2 target=$3 uri=$4 upstream=$5 unfinished=$6 name=$7 email=$8

fail() {
  printf 'fatal: %s\\n' "$1" >&2
  exit 1
}

# By the shell itself where git keeps both in plain files, as after most clones: a process takes longer than that.
report() {
  data=$location/.git head= commit=
  if [ -f "$data/HEAD" ]; then read -r head <"$data/HEAD" || :; fi
  case $head in
    'ref: refs/heads/.invalid') ;;
    'ref: refs/heads/'*)
      branch=\${head#ref: refs/heads/}
      if [ -f "$data/refs/heads/$branch" ]; then read -r commit <"$data/refs/heads/$branch" || :; fi
      case $branch:$commit in
        *[!0-9A-Za-z._/-]*:* | *:*[!0-9a-f]*) ;;
        *)
          if [ "\${#commit}" = 40 ] || { [ -z "$commit" ] && [ ! -e "$data/packed-refs" ]; }; then
            printf '%s\\n' "$branch" "$commit"
            return
          fi
          ;;
      esac
      ;;
  esac
  git -C "$location" symbolic-ref --quiet --short HEAD || echo
  git -C "$location" rev-parse --quiet --verify HEAD || echo
}

[ ! -e "$unfinished" ] || rm -rf -- "$unfinished"
if [ -e "$location/.git" ]; then
  report
  exit
fi
[ -n "$uri" ] || exit 2
if [ -e "$location" ] || [ -L "$location" ]; then
  # An empty folder can be replaced.
  rmdir -- "$location" 2>/dev/null || fail 'there is something else in the place of the checkout'
fi
if [ -n "$target" ] && [ "$mode" != REMOTE_COMMIT ]; then
  git check-ref-format "refs/heads/$target" || fail 'the name of the branch or tag is not valid'
fi
trap 'rm -rf -- "$unfinished"' EXIT

case $mode in
  REMOTE_HEAD | LOCAL_BRANCH) git clone --quiet --template= -- "$uri" "$unfinished" ;;
  *) git clone --quiet --template= --no-checkout -- "$uri" "$unfinished" ;;
esac
here() { git -C "$unfinished" "$@"; }
has() { here rev-parse --quiet --verify "$1^{commit}" >/dev/null; }

case $mode in
  REMOTE_BRANCH)
    has "refs/remotes/origin/$target" || fail "the remote has no branch $target"
    here checkout --quiet -B "$target" --track "origin/$target"
    ;;
  REMOTE_TAG)
    has "refs/tags/$target" || fail "the remote has no tag $target"
    here checkout --quiet --detach "refs/tags/$target^{commit}"
    ;;
  REMOTE_COMMIT)
    # One that no branch leads to, as that of a pull request, has to be asked for.
    has "$target" || here fetch --quiet origin "$target" || fail "the remote has no commit $target"
    here checkout --quiet --detach "$target^{commit}"
    ;;
  LOCAL_BRANCH)
    if has HEAD; then here checkout --quiet --no-track -B "$target"; else here symbolic-ref HEAD "refs/heads/$target"; fi
    ;;
esac
[ -z "$upstream" ] || here remote add upstream "$upstream"
[ -z "$name" ] || here config -- user.name "$name"
[ -z "$email" ] || here config -- user.email "$email"
case $location in */*) mkdir -p -- "\${location%/*}" ;; esac
mv -T -- "$unfinished" "$location"
trap - EXIT
report
`
