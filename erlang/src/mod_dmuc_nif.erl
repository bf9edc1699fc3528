%%% Functions of priv/lib/mod_dmuc.so, the protocol without I/O.
%%%
%%% A module of its own: with -on_load in the gen_mod, a failed load of the library would take the
%%% gen_mod with it, and `ejabberdctl module_upgrade' aborts.
-module(mod_dmuc_nif).

-export([check/0]).
-export([info/0, namespace/0, options/0, shared_new/1, shared_set/2, asks_owners/1, owner_field/0,
         counters/1, is_envelope_id/1, is_question_id/1, log_drain/2]).
-export([columns/0, overview/1, metrics/1, room_links/2, replica_links/2, failed/1, table/1]).
-export([sample/2, page_file/1, page_document/7]).
-export([support_new/2, support_ask/4, support_answered/4, support_next_question/1,
         support_announced/3, support_forget/2, support_export/3, support_import/5]).
-export([digest/1]).
-export([room_new/4, room_capture/5, room_capture_many/4, room_event/4, room_event_dirty/4,
         room_event_captured/3, room_event_captured_dirty/3,
         room_support/4, room_setup_result/5, room_report/4, room_bounced/5,
         room_occupants_asked/1, room_occupants/3,
         room_unasked/3, room_may_show_domains/2, room_tick/2, room_close/2]).
-export([replica_new/3, replica_outgoing/5, replica_incoming/5, replica_session_closed/3,
         replica_session_lost/4,
         replica_consent/3, replica_import_consent/5, replica_unknown_sessions/3,
         replica_setup/4, replica_returned/4, replica_envelope/5, replica_envelope_dirty/5, replica_cast/5,
         replica_tick/2,
         replica_announce/2, replica_close/2]).
-export_type([millis/0, jid/0, facts/0, xmlel/0, payload_in/0, payload_ref/0, incoming/0,
              body/0, answer/0, action/0, actions/0, digest/0, row/0, response/0]).

-on_load(load/0).

-include("mod_dmuc.hrl").

%% What this wrapper was written against.
-define(VERSION, <<"0.1.0">>).
-define(ABI, 9).
-define(LOAD_RESULT, {?MODULE, load_result}).

-type millis() :: non_neg_integer().
-type jid() :: binary() | {binary(), binary(), binary()} | jid:jid().
-type facts() :: non_neg_integer().
%% fast_xml's; children may be `{raw, Xml}' on the way out.
-type xmlel() :: {xmlel, binary(), [{binary(), binary()}], [xmlel() | {xmlcdata, binary()} |
                                                            {raw, binary()}]}.
%% Names the content of a stanza without `to', in this process of the system.
-type digest() :: <<_:128>>.
%% A stanza without `to', or one that room_capture/5 has told the id of since the last event.
-type payload_in() :: {Xml :: binary(), facts(), Nick :: binary(), digest(), xmlel()} |
                      {known, Id :: non_neg_integer()}.
%% Place among the payloads of the same call, from 0, or an older stanza.
-type payload_ref() :: non_neg_integer() | {raw, binary()}.
%% Packed, for operations with a slot, is what a `replay' gives back.
-type incoming() :: {facts(), From :: binary(), HasTo :: boolean(), Packed :: binary() | none}.
%% An element and, for each of its children in turn, the stanza that it carries.
-type body() :: {xmlel(), [incoming() | none]}.
%% To a set-up: what was sent back, the conditions of an error, or nothing.
-type answer() :: body() | {refused, [Condition :: binary()]} | undefined.
%% A link as columns/0 say.
-type row() :: [binary() | integer()].
%% Over HTTP.
-type response() :: {Status :: pos_integer(), [{binary(), binary()}], Body :: binary()}.
-type action() :: {plain, payload_ref(), [jid()]} |
                  {envelope, Domain :: binary(), Id :: binary(), xmlel()} |
                  {setup, Domain :: binary(), Id :: binary(), xmlel()} |
                  {ask_support, binary()} |
                  {support_seen, binary()} |
                  {forget_support, binary()} |
                  {fail, [jid()]} |
                  {deliver, Op :: non_neg_integer(), [jid()]} |
                  {replay, Packed :: binary(), [jid()]} |
                  {report, Room :: jid(), Id :: binary(), xmlel()} |
                  {refuse, Room :: jid(), Id :: binary(), Condition :: binary(), Dmuc :: binary()} |
                  {result, xmlel()} |
                  {setup_error, Condition :: binary(), Dmuc :: binary()} |
                  {evict, Room :: jid(), Nick :: binary(), Session :: jid()} |
                  {depart, Room :: jid(), Nick :: binary(), Session :: jid()} |
                  {link_over, Room :: binary()} |
                  {handled, Room :: binary(), Epoch :: binary(), Seq :: non_neg_integer()} |
                  {relay, [Domain :: binary()]} |
                  {consent_changed, Room :: binary(), Session :: binary()} |
                  {announce, Room :: jid()}.
-type actions() :: {Wake :: undefined | millis(), [action()]}.

%%%===================================================================
%%% Loading
%%%===================================================================

%% Always ok: the reason of a failure is told once, by check/0, in words for the operator.
-spec load() -> ok.
load() ->
    Result = try
                 Path = p1_nif_utils:get_so_path(?MODULE, [mod_dmuc], "mod_dmuc"),
                 case erlang:load_nif(Path, 0) of
                     ok -> ok;
                     {error, {_, Text}} -> {error, iolist_to_binary(Text)}
                 end
             catch _:Reason ->
                     {error, iolist_to_binary(io_lib:format("~p", [Reason]))}
             end,
    persistent_term:put(?LOAD_RESULT, Result).

%% Whether the library is there and fits this wrapper.
-spec check() -> ok | {error, binary()}.
check() ->
    case persistent_term:get(?LOAD_RESULT, {error, <<"not loaded">>}) of
        ok ->
            try info() of
                {?VERSION, ?ABI} ->
                    ok;
                {Version, Abi} ->
                    {error, iolist_to_binary(
                              io_lib:format(
                                "the native library is version ~ts (ABI ~B), this module is ~ts "
                                "(ABI ~B); restart ejabberd after an upgrade, a running server "
                                "keeps the old library", [Version, Abi, ?VERSION, ?ABI]))}
            catch _:Reason ->
                    {error, iolist_to_binary(
                              io_lib:format("the native library does not answer: ~p", [Reason]))}
            end;
        {error, Text} ->
            {error, <<"the native library cannot be loaded: ", Text/binary>>}
    end.

%%%===================================================================
%%% Stubs
%%%===================================================================
-define(NIF, erlang:nif_error(not_loaded)).

-spec info() -> {binary(), non_neg_integer()}.
info() -> ?NIF.

-spec namespace() -> binary().
namespace() -> ?NIF.

-spec options() -> [{binary(), Default :: integer(), Min :: integer(), Max :: integer(),
                     Doc :: binary()}].
options() -> ?NIF.

-spec shared_new([{binary(), non_neg_integer()}]) -> {ok, native()} | {error, binary()}.
shared_new(_Options) -> ?NIF.

-spec shared_set(native(), [{binary(), non_neg_integer()}]) -> ok | {error, binary()}.
shared_set(_Shared, _Options) -> ?NIF.

-spec asks_owners(native()) -> boolean().
asks_owners(_Shared) -> ?NIF.

-spec owner_field() -> {binary(), binary()}.
owner_field() -> ?NIF.

-spec columns() -> [{Name :: binary(), text | number, Meaning :: binary()}].
columns() -> ?NIF.

-spec overview(native()) -> [{binary(), binary()}].
overview(_Shared) -> ?NIF.

-spec metrics(native()) -> [{counter | gauge, Name :: binary(), Meaning :: binary(),
                             non_neg_integer()}].
metrics(_Shared) -> ?NIF.

-spec room_links(native(), millis()) -> [row()].
room_links(_Room, _Now) -> ?NIF.

-spec replica_links(native(), millis()) -> [row()].
replica_links(_Replica, _Now) -> ?NIF.

-spec failed(Room :: binary()) -> [row()].
failed(_Room) -> ?NIF.

-spec table([row()]) -> binary().
table(_Rows) -> ?NIF.

-spec sample(native(), millis()) -> ok.
sample(_Shared, _Now) -> ?NIF.

-spec page_file(Name :: binary()) -> response() | document.
page_file(_Name) -> ?NIF.

-spec page_document(native(), millis(), Host :: binary(), Above :: binary(), Room :: binary(),
                    Filter :: binary(), [row()]) -> response().
page_document(_Shared, _Now, _Host, _Above, _Room, _Filter, _Rows) -> ?NIF.

-spec counters(native()) -> [{binary(), non_neg_integer()}].
counters(_Shared) -> ?NIF.

-spec is_envelope_id(binary()) -> boolean().
is_envelope_id(_Id) -> ?NIF.

-spec is_question_id(binary()) -> boolean().
is_question_id(_Id) -> ?NIF.

-spec log_drain(pos_integer(), Debug :: boolean()) -> {[{error | warning | info | debug, binary()}],
                                   Dropped :: non_neg_integer()}.
log_drain(_Most, _Debug) -> ?NIF.

-spec support_new(non_neg_integer(), native()) -> native().
support_new(_Seed, _Shared) -> ?NIF.

-spec support_ask(native(), millis(), binary(), jid()) -> yes | no | query | wait.
support_ask(_Support, _Now, _Domain, _Room) -> ?NIF.

-spec support_answered(native(), millis(), binary(), boolean() | unknown) -> [Room :: binary()].
support_answered(_Support, _Now, _Domain, _Yes) -> ?NIF.

-spec support_next_question(native()) -> binary() | undefined.
support_next_question(_Support) -> ?NIF.

-spec support_announced(native(), millis(), binary()) -> ok.
support_announced(_Support, _Now, _Domain) -> ?NIF.

-spec support_forget(native(), binary()) -> ok.
support_forget(_Support, _Domain) -> ?NIF.

-spec support_export(native(), millis(), binary()) -> {boolean(), millis()} | undefined.
support_export(_Support, _Now, _Domain) -> ?NIF.

-spec support_import(native(), millis(), binary(), boolean(), millis()) -> ok.
support_import(_Support, _Now, _Domain, _Yes, _Remaining) -> ?NIF.

-spec room_new(jid(), non_neg_integer(), Secret :: <<_:256>>, native()) ->
          {ok, native()} | {error, binary()}.
room_new(_Jid, _Seed, _Secret, _Shared) -> ?NIF.

-spec digest(tuple()) -> digest().
digest(_Stanza) -> ?NIF.

-spec room_capture(native(), millis(), jid(), facts(), tuple() | none) ->
          pass | pass_poll | hold | hold_all |
          {hold | hold_all, digest(), Known :: non_neg_integer() | undefined}.
room_capture(_Room, _Now, _To, _Facts, _Stanza) -> ?NIF.

-spec room_capture_many(native(), millis(), [jid()], facts()) -> all | none | [boolean()].
room_capture_many(_Room, _Now, _To, _Facts) -> ?NIF.

-spec room_event(native(), millis(), [payload_in()], [{non_neg_integer(), [jid()]}]) -> actions().
room_event(_Room, _Now, _Payloads, _Copies) -> ?NIF.

-spec room_event_dirty(native(), millis(), [payload_in()], [{non_neg_integer(), [jid()]}]) ->
          actions().
room_event_dirty(_Room, _Now, _Payloads, _Copies) -> ?NIF.

-spec room_event_captured(native(), millis(), payload_in()) -> actions().
room_event_captured(_Room, _Now, _Payload) -> ?NIF.

-spec room_event_captured_dirty(native(), millis(), payload_in()) -> actions().
room_event_captured_dirty(_Room, _Now, _Payload) -> ?NIF.

-spec room_support(native(), millis(), binary(), boolean() | unknown) -> actions().
room_support(_Room, _Now, _Domain, _Yes) -> ?NIF.

-spec room_setup_result(native(), millis(), binary(), binary(), answer()) -> actions().
room_setup_result(_Room, _Now, _Domain, _Id, _Body) -> ?NIF.

-spec room_report(native(), millis(), binary(), body()) -> actions().
room_report(_Room, _Now, _Domain, _Body) -> ?NIF.

-spec room_bounced(native(), millis(), binary(), binary(), refused | unknown) -> actions().
room_bounced(_Room, _Now, _Domain, _Id, _Fate) -> ?NIF.

-spec room_occupants_asked(native()) -> ok.
room_occupants_asked(_Room) -> ?NIF.

-spec room_occupants(native(), millis(), [jid()]) -> actions().
room_occupants(_Room, _Now, _Jids) -> ?NIF.

-spec room_may_show_domains(native(), boolean()) -> ok.
room_may_show_domains(_Room, _MayShow) -> ?NIF.

-spec room_unasked(native(), millis(), jid()) -> actions().
room_unasked(_Room, _Now, _Session) -> ?NIF.

-spec room_tick(native(), millis()) -> actions().
room_tick(_Room, _Now) -> ?NIF.

-spec room_close(native(), millis()) -> actions().
room_close(_Room, _Now) -> ?NIF.

-spec replica_new(binary(), non_neg_integer(), native()) -> native().
replica_new(_Domain, _Seed, _Shared) -> ?NIF.

-spec replica_outgoing(native(), millis(), jid(), jid(), facts()) -> boolean().
replica_outgoing(_Replica, _Now, _Session, _To, _Facts) -> ?NIF.

-spec replica_incoming(native(), millis(), jid(), jid(), facts()) -> boolean().
replica_incoming(_Replica, _Now, _Session, _From, _Facts) -> ?NIF.

-spec replica_session_closed(native(), millis(), jid()) -> [Room :: binary()].
replica_session_closed(_Replica, _Now, _Session) -> ?NIF.

%% Tells the room of a session that ended with its node.
-spec replica_session_lost(native(), millis(), jid(), jid()) -> actions().
replica_session_lost(_Replica, _Now, _Room, _Session) -> ?NIF.

-spec replica_consent(native(), jid(), jid()) -> binary() | undefined.
replica_consent(_Replica, _Room, _Session) -> ?NIF.

-spec replica_import_consent(native(), millis(), jid(), jid(), binary() | undefined) -> ok.
replica_import_consent(_Replica, _Now, _Room, _Session, _Record) -> ?NIF.

-spec replica_unknown_sessions(native(), jid(), body()) -> [binary()].
replica_unknown_sessions(_Replica, _Room, _Body) -> ?NIF.

-spec replica_setup(native(), millis(), jid(), body()) -> actions().
replica_setup(_Replica, _Now, _From, _Body) -> ?NIF.

-spec replica_returned(native(), millis(), jid(), binary()) -> actions().
replica_returned(_Replica, _Now, _From, _Id) -> ?NIF.

-spec replica_envelope(native(), millis(), jid(), binary(), body()) -> actions().
replica_envelope(_Replica, _Now, _From, _Id, _Body) -> ?NIF.

%% The element is passed on as it is.
-spec replica_cast(native(), millis(), jid(), {xmlel(), incoming() | none}, Xml :: binary()) ->
          actions().
replica_cast(_Replica, _Now, _From, _Relayed, _Xml) -> ?NIF.

-spec replica_envelope_dirty(native(), millis(), jid(), binary(), body()) -> actions().
replica_envelope_dirty(_Replica, _Now, _From, _Id, _Body) -> ?NIF.

-spec replica_tick(native(), millis()) -> actions().
replica_tick(_Replica, _Now) -> ?NIF.

-spec replica_announce(native(), millis()) -> actions().
replica_announce(_Replica, _Now) -> ?NIF.

-spec replica_close(native(), millis()) -> actions().
replica_close(_Replica, _Now) -> ?NIF.
