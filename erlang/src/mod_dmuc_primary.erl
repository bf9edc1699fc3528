%%% The side of the MUC service: what its rooms send to remote sessions.
%%%
%%% The handle of a room lives in the dictionary of the room's own process, which alone uses it.
%%% Stanzas that the core wants to hold are kept there too, until the room has finished its current
%%% event: a marker, an IQ of the room to itself, comes back in muc_process_iq behind it. What other
%%% processes have for the core (reports, bounces, answers, timers) comes in such markers as well.
-module(mod_dmuc_primary).

%% Hooks
-export([filter_packet/1, multicast_route/1, muc_process_iq/2, muc_filter_presence/3, leave_room/4,
         room_destroyed/3, room_destroyed/4, s2s_out_closed/2, s2s_out_handle_info/2]).
%% For the other modules of mod_dmuc
-export([find/1, register/1, unregister/1, tell/2, report/3, bounced/4, support_answer/3,
         ended/3]).

-compile({no_auto_import, [register/2, unregister/1]}).

-include("logger.hrl").
-include("xmpp.hrl").
-include("mod_dmuc.hrl").

-define(ROOM, mod_dmuc_room).
-define(RUN, mod_dmuc_run).
-define(BYPASS, mod_dmuc_bypass).
%% Copies from which on an event goes to a dirty scheduler, one of many stanzas and one of one.
-define(DIRTY, 1000).
-define(DIRTY_BROADCAST, 2000).
%% Before a room whose handle broke is tried again.
-define(REOPEN_AFTER, timer:seconds(30)).
%% For so long after a question for resumption its link is taken for split, in milliseconds. The
%% core asks more often.
-define(ASKED_LATELY, 60_000).
%% Before a server is connected to again for a link that is split, in milliseconds.
-define(RETRY_AFTER, 5_000).

%% Place among the payloads of an event, from 0.
-type token() :: non_neg_integer().

%% A payload, and those who get it one after the other.
-type copies() :: {token(), [jid()]}.

%% What is held for some.
-record(payload,
        {stanza :: stanza(),                    % without `to'
         facts  :: mod_dmuc_nif:facts(),
         digest :: mod_dmuc_nif:digest(),
         known  :: non_neg_integer() | undefined}). % the core has it under this id

%% A handle, and what the room has sent since its current event began.
-record(room,
        {jid      :: jid(),
         primary  :: #primary{},
         handle   :: mod_dmuc_nif:native(),
         marked = false :: boolean(),           % a flush marker is under way
         poll = false :: boolean(),             % the core wants to be called though nothing is held
         copies = [] :: [copies()],             % newest first, and so in each
         tokens = #{} :: #{mod_dmuc_nif:digest() => token()},
         newest = [] :: [{mod_dmuc_nif:facts(), stanza(), token()}], % one of each kind
         payloads = [] :: [#payload{}],         % newest first
         remote = #{} :: #{binary() => boolean()},
         holding = #{} :: #{binary() => []},    % domains for which everything is held in this event
         passed :: stanza() | undefined,        % a broadcast that the core has seen already
         timer :: reference() | undefined}).

%% Copies of one presence that follow one another, the newest of the room's. By itself, since a room has a
%% thousand copies of each, and each would bring a new #room{}.
-record(run,
        {gen     :: term(),
         key     :: presence(),
         token   :: token(),
         holding :: #{binary() => []},
         jids = [] :: [jid()]}).                % newest first

-type message_in() :: flush | open | reopen | tick |
                      {occupants, [ljid()]} |
                      {may_show_domains, boolean()} |
                      {support, binary(), boolean() | unknown} |
                      {setup_result, binary(), binary(), mod_dmuc_nif:answer()} |
                      {report, binary(), mod_dmuc_nif:body()} |
                      {bounced, binary(), binary(), refused | unknown} |
                      {close | links, {pid(), reference()}}.

%%%===================================================================
%%% Registry of MUC services
%%%===================================================================
-spec find(binary()) -> #primary{} | undefined.
find(MucHost) ->
    persistent_term:get({?MODULE, MucHost}, undefined).

-spec register(#primary{}) -> ok.
register(#primary{host = MucHost} = Primary) ->
    persistent_term:put({?MODULE, MucHost}, Primary).

-spec unregister(binary()) -> boolean().
unregister(MucHost) ->
    persistent_term:erase({?MODULE, MucHost}).

%%%===================================================================
%%% Hooks
%%%===================================================================

%% Every stanza of the node passes here.
-spec filter_packet(stanza() | drop) -> stanza() | drop | {stop, drop}.
filter_packet(drop) ->
    drop;
filter_packet(#message{type = error, id = Id,
                       from = #jid{luser = <<>>, lresource = <<>>, lserver = Domain},
                       to = #jid{luser = U, lserver = S, lresource = <<>>}} = Pkt)
  when U /= <<>> ->
    %% Made here: one that came over s2s ended in s2s_receive_packet. Whether the envelope has
    %% arrived is not known.
    case find(S) of
        undefined ->
            Pkt;
        Primary ->
            guard(fun() -> bounced(Primary, {U, Domain}, Id, unknown) end, false,
                  fun(true) -> {stop, drop}; (false) -> Pkt end)
    end;
filter_packet(#presence{from = #jid{lserver = S}, to = #jid{lserver = Domain} = To} = Pkt) ->
    case get(?RUN) of
        #run{gen = Gen, key = Key, holding = Holding, jids = Jids} = Run
          when is_map_key(Domain, Holding), To#jid.lresource /= <<>> ->
            case is_copy(Pkt, Key) andalso find(S) of
                #primary{gen = Gen} ->
                    put(?RUN, Run#run{jids = [To | Jids]}),
                    {stop, drop};
                _ ->
                    routed(Pkt)
            end;
        _ ->
            routed(Pkt)
    end;
filter_packet(Pkt) ->
    routed(Pkt).

%% Whether its key is this, without making that.
-spec is_copy(presence(), presence()) -> boolean().
is_copy(#presence{id = Id, type = Type, lang = Lang, from = From, show = Show, status = Status,
                  priority = Priority, sub_els = Els},
        #presence{id = Id, type = Type, lang = Lang, from = From, show = Show, status = Status,
                  priority = Priority, sub_els = Els}) ->
    true;
is_copy(_, _) ->
    false.

-spec routed(stanza()) -> stanza() | {stop, drop}.
routed(Pkt) ->
    case xmpp:get_from(Pkt) of
        #jid{lserver = S} = From ->
            case find(S) of
                undefined -> Pkt;
                Primary -> from_service(Primary, From, Pkt)
            end;
        _ ->
            Pkt
    end.

-spec from_service(#primary{}, jid(), stanza()) -> stanza() | {stop, drop}.
from_service(_Primary, #jid{luser = <<>>, lresource = <<>>},
             #iq{type = result, sub_els = [#disco_info{node = <<>>, features = Features} = Info]} =
                 Pkt) ->
    %% mod_muc has no hook for the features of the service.
    Pkt#iq{sub_els = [Info#disco_info{features = [?NS_DMUC | Features]}]};
from_service(Primary, #jid{luser = U, lresource = <<>>} = From, #iq{} = IQ) when U /= <<>> ->
    case guard(fun() -> mod_dmuc_form:answered(From, IQ) end, undefined, fun(Said) -> Said end) of
        undefined -> ok;
        Said -> tell(self(), {From, Said})
    end,
    to_session(Primary, From, IQ);
from_service(Primary, From, Pkt) ->
    to_session(Primary, From, Pkt).

-spec to_session(#primary{}, jid(), stanza()) -> stanza() | {stop, drop}.
to_session(Primary, #jid{luser = U} = From, Pkt) when U /= <<>> ->
    case xmpp:get_to(Pkt) of
        #jid{lresource = R} = To when R /= <<>> ->
            case get(?BYPASS) of
                true -> Pkt;
                _ -> guard(fun() -> capture(Primary, From, To, Pkt) end, pass,
                           fun(hold) -> {stop, drop}; (pass) -> Pkt end)
            end;
        _ ->
            Pkt
    end;
to_session(_Primary, _From, Pkt) ->
    Pkt.

%% A broadcast of a room, before it is split; messages only.
-spec multicast_route({jid(), binary(), [jid()], stanza(), boolean()}) ->
          {jid(), binary(), [jid()], stanza(), boolean()}.
multicast_route({#jid{lserver = S, luser = U} = From, Domain, To, Pkt, false} = Acc)
  when U /= <<>> ->
    case find(S) of
        undefined -> Acc;
        Primary -> guard(fun() -> capture_many(Primary, From, To, xmpp:set_from(Pkt, From)) end,
                         To, fun(Rest) -> {From, Domain, Rest, Pkt, false} end)
    end;
multicast_route(Acc) ->
    Acc.

%% ejabberd takes each presence of somebody who is not there for a join. Who has been put out and did not
%% hear it would be in again, with a gap that he does not know of.
-spec muc_filter_presence(presence() | drop, term(), binary()) -> presence() | drop | {stop, drop}.
muc_filter_presence(#presence{type = available, from = From, to = #jid{lserver = S}} = Pkt,
                    _State, _Nick) ->
    case find(S) == undefined orelse xmpp:has_subtag(Pkt, #muc{}) of
        true -> Pkt;
        false -> guard(fun() -> unasked(From) end, false,
                       fun(true) -> {stop, drop}; (false) -> Pkt end)
    end;
muc_filter_presence(Acc, _State, _Nick) ->
    Acc.

-spec unasked(jid()) -> boolean().
unasked(From) ->
    case get(?ROOM) of
        #room{} = Held ->
            case flush(Held) of
                #room{handle = Handle} = Room ->
                    case mod_dmuc_nif:room_unasked(Handle, mod_dmuc:now(), jid:tolower(From)) of
                        {_, []} -> false;
                        Actions -> perform(Actions, {}, Room), true
                    end;
                undefined ->
                    false
            end;
        _ ->
            false
    end.

-spec muc_process_iq(iq() | ignore, term()) -> iq() | ignore | {stop, ignore}.
muc_process_iq(#iq{to = #jid{lserver = S} = To, sub_els = [{dmuc, Message}]}, _State) ->
    case find(S) of
        undefined -> ok;
        Primary -> guard(fun() -> handle(Message, Primary, To) end, ok, fun(_) -> ok end)
    end,
    {stop, ignore};
muc_process_iq(Acc, _State) ->
    Acc.

%% A room that ends calls this for each occupant and processes no marker afterwards.
-spec leave_room(binary(), binary(), binary(), jid()) -> ok.
leave_room(_ServerHost, _Room, _Host, _Jid) ->
    guard(fun flush_held/0, ok, fun(_) -> ok end).

-spec room_destroyed(binary(), binary(), binary()) -> ok.
room_destroyed(ServerHost, Room, Host) ->
    room_destroyed(ServerHost, Room, Host, false).

%% Since 24.02 with the room's persistence.
-spec room_destroyed(binary(), binary(), binary(), boolean()) -> ok.
room_destroyed(_ServerHost, _Room, _Host, _Persistent) ->
    guard(fun flush_held/0, ok, fun(_) -> ok end).

%%%===================================================================
%%% What others have for a room
%%%===================================================================

%% Hands a message to the process of a room.
-spec tell(pid(), {jid(), message_in()}) -> ok.
tell(Pid, {Room, Message}) ->
    mod_muc_room:route(Pid, #iq{type = set, id = <<"dmuc">>, from = Room, to = Room,
                                sub_els = [{dmuc, Message}]}).

%% The same by name; false when there is no such room.
-spec tell_room(#primary{}, binary(), message_in()) -> boolean().
tell_room(#primary{host = MucHost}, Name, Message) ->
    case mod_muc:find_online_room(Name, MucHost) of
        {ok, Pid} ->
            tell(Pid, {mod_dmuc_xml:jid({Name, MucHost, <<>>}), Message}),
            true;
        error ->
            false
    end.

%% A <report/> or <announce/> received over s2s from a bare domain.
-spec report(#primary{}, message(), xmlel()) -> boolean().
report(Primary, #message{from = #jid{lserver = Domain}, to = #jid{luser = Name}}, El) ->
    {Body, _} = mod_dmuc_xml:incoming(El),
    tell_room(Primary, Name, {report, Domain, Body}).

%% An error with an envelope's id; its content is not looked at. False if it is no envelope's.
-spec bounced(#primary{}, {binary(), binary()}, binary(), refused | unknown) -> boolean().
bounced(Primary, {Name, Domain}, Id, Fate) ->
    mod_dmuc_nif:is_envelope_id(Id) andalso
        begin
            tell_room(Primary, Name, {bounced, Domain, Id, Fate}),
            true
        end.

%% The domain has answered the disco#info question.
-spec support_answer(#primary{}, binary(), iq() | timeout) -> ok.
support_answer(#primary{host = MucHost, support = Support} = Primary, Domain, Reply) ->
    Answer = speaks_dmuc(Reply),
    Rooms = mod_dmuc_nif:support_answered(Support, mod_dmuc:now(), Domain, Answer),
    publish_support(Primary, Domain),
    lists:foreach(
      fun(Room) ->
              #jid{luser = Name, lserver = MucHost} = jid:decode(Room),
              tell_room(Primary, Name, {support, Domain, Answer})
      end, Rooms),
    next_question(Primary).

%% The process of a room has ended; the replicas are told, so that they can forget it.
-spec ended(#primary{}, jid(), mod_dmuc_nif:native()) -> ok.
ended(Primary, Jid, Handle) ->
    Room = #room{jid = Jid, primary = Primary, handle = Handle},
    {_, Actions} = mod_dmuc_nif:room_close(Handle, mod_dmuc:now()),
    [action(Action, {}, Room) || Action <- Actions,
                                 lists:member(element(1, Action), [envelope, plain])],
    ok.

-spec speaks_dmuc(iq() | timeout) -> boolean() | unknown.
speaks_dmuc(#iq{type = result} = IQ) ->
    try xmpp:decode_els(IQ) of
        #iq{sub_els = [#disco_info{features = Features}]} -> lists:member(?NS_DMUC, Features);
        _ -> unknown
    catch _:{xmpp_codec, _} -> unknown
    end;
speaks_dmuc(_) ->
    unknown.

-spec next_question(#primary{}) -> ok.
next_question(#primary{support = Support} = Primary) ->
    case mod_dmuc_nif:support_next_question(Support) of
        undefined ->
            ok;
        Domain ->
            ask(Primary, Domain),
            next_question(Primary)
    end.

-spec ask(#primary{}, binary()) -> ok.
ask(#primary{host = MucHost, server = Server}, Domain) ->
    ejabberd_router:route_iq(
      #iq{type = get, from = jid:make(MucHost), to = jid:make(Domain), sub_els = [#disco_info{}]},
      {support, MucHost, Domain}, Server).

%% Lets the other nodes know.
-spec publish_support(#primary{}, binary()) -> ok.
publish_support(#primary{host = MucHost, support = Support}, Domain) ->
    case mod_dmuc_nif:support_export(Support, mod_dmuc:now(), Domain) of
        {Yes, Remaining} -> mod_dmuc_store:put_support(MucHost, Domain, Yes, Remaining);
        undefined -> ok
    end.

%%%===================================================================
%%% Capturing; in the process of the room
%%%===================================================================

%% The open room of this process, if this process is that room.
-spec room(#primary{}, jid()) -> #room{} | undefined.
room(#primary{gen = Gen} = Primary, #jid{luser = U, lserver = S}) ->
    case get(?ROOM) of
        #room{jid = #jid{luser = U, lserver = S}, primary = #primary{gen = Gen}} = Room ->
            Room;
        {off, Gen} ->
            undefined;
        _ ->
            case mod_muc:find_online_room(U, S) of
                {ok, Pid} when Pid == self() -> open(Primary, mod_dmuc_xml:jid({U, S, <<>>}));
                _ -> undefined
            end
    end.

-spec open(#primary{}, jid()) -> #room{} | undefined.
open(#primary{shared = Shared, gen = Gen, server = Server} = Primary, Jid) ->
    case mod_dmuc_nif:room_new(mod_dmuc_xml:ljid(Jid), mod_dmuc:seed(),
                               crypto:strong_rand_bytes(32), Shared) of
        {ok, Handle} ->
            mod_dmuc_nif:room_may_show_domains(Handle, mod_dmuc_form:may_show_domains(Jid)),
            gen_server:cast(Server, {room, self(), Jid, Handle}),
            keep(#room{jid = Jid, primary = Primary, handle = Handle});
        {error, Reason} ->
            ?ERROR_MSG("mod_dmuc: room ~ts stays with plain MUC: ~ts", [jid:encode(Jid), Reason]),
            put(?ROOM, {off, Gen}),
            undefined
    end.

-spec keep(#room{}) -> #room{}.
keep(Room) ->
    put(?ROOM, Room),
    Room.

-spec capture(#primary{}, jid(), jid(), stanza()) -> pass | hold.
capture(Primary, From, #jid{lserver = Domain} = To, Pkt) ->
    case room(Primary, From) of
        undefined ->
            pass;
        Room0 ->
            case is_remote(Domain, Room0) of
                {false, #room{marked = Marked} = Room} ->
                    %% The marker makes it be looked up anew.
                    Marked andalso keep(Room),
                    pass;
                {true, Room} ->
                    Key = mod_dmuc_xml:key(Pkt),
                    case Room#room.passed of
                        Key -> keep(Room), pass;
                        _ -> capture(taken_in(Room#room{passed = undefined}), To, Key)
                    end
            end
    end.

-spec capture(#room{}, jid(), stanza()) -> pass | hold.
capture(#room{newest = Newest, holding = Holding, copies = Copies} = Room,
        #jid{lserver = Domain} = To, Key) ->
    Facts = mod_dmuc_xml:facts(Key),
    %% The copies of a broadcast follow one another: those need no second look.
    case {lists:keyfind(Facts, 1, Newest), Copies} of
        {{_, #presence{} = Key, Token}, [{Token, _} | _]} when is_map_key(Domain, Holding) ->
            #room{primary = #primary{gen = Gen}} = keep(Room),
            put(?RUN, #run{gen = Gen, key = Key, token = Token, holding = Holding, jids = [To]}),
            hold;
        {{_, Key, Token}, _} when is_map_key(Domain, Holding) ->
            keep(hold(To, Token, Room)),
            hold;
        {{_, Key, Token}, _} ->
            capture(Room, To, Facts, none, Token);
        _ ->
            capture(Room, To, Facts, Key, none)
    end.

-spec capture(#room{}, jid(), mod_dmuc_nif:facts(), stanza() | none, token() | none) ->
          pass | hold.
capture(#room{handle = Handle} = Room, #jid{lserver = Domain} = To, Facts, Key, Seen) ->
    LTo = mod_dmuc_xml:ljid(To),
    case mod_dmuc_nif:room_capture(Handle, mod_dmuc:now(), LTo, Facts, Key) of
        pass ->
            keep(Room),
            pass;
        pass_poll ->
            keep(mark(Room#room{poll = true})),
            pass;
        {Verdict, Digest, Known} ->
            Payload = #payload{stanza = Key, facts = Facts, digest = Digest, known = Known},
            {Token, Room1} = token(Payload, Room),
            held(Verdict, Domain, hold(To, Token, Room1));
        Verdict ->
            held(Verdict, Domain, hold(To, Seen, Room))
    end.

-spec held(hold | hold_all, binary(), #room{}) -> hold.
held(hold, _Domain, Room) ->
    keep(mark(Room)),
    hold;
held(hold_all, Domain, #room{holding = Holding} = Room) ->
    held(hold, Domain, Room#room{holding = Holding#{Domain => []}}).

%% Gives the recipients for whom the broadcast goes on as it is.
-spec capture_many(#primary{}, jid(), [jid()], stanza()) -> [jid()].
capture_many(Primary, From, To, Pkt) ->
    case room(Primary, From) of
        undefined ->
            To;
        Room0 ->
            {Remote, Local, #room{handle = Handle} = Room1} = split(To, [], [], Room0),
            Key = mod_dmuc_xml:key(Pkt),
            Facts = mod_dmuc_xml:facts(Key),
            Room = keep(Room1#room{passed = Key}),
            case mod_dmuc_nif:room_capture_many(Handle, mod_dmuc:now(), Remote, Facts) of
                none ->
                    To;
                all ->
                    broadcast(Room, Remote, Key, Facts),
                    Local;
                Flags ->
                    Pairs = lists:zip(Remote, Flags),
                    broadcast(Room, [Jid || {Jid, true} <- Pairs], Key, Facts),
                    [Jid || {Jid, false} <- Pairs] ++ Local
            end
    end.

%% The core knows who they are: those whom it has just said to hold.
-spec broadcast(#room{}, [jid()], stanza(), mod_dmuc_nif:facts()) -> any().
broadcast(Room0, Held, Key, Facts) ->
    %% What the room has sent before comes before.
    case flush(Room0) of
        #room{handle = Handle} = Room ->
            try
                Payload = mod_dmuc_xml:encode(Key, Facts, mod_dmuc_nif:digest(Key)),
                case length(Held) > ?DIRTY_BROADCAST of
                    true -> mod_dmuc_nif:room_event_captured_dirty(Handle, mod_dmuc:now(), Payload);
                    false -> mod_dmuc_nif:room_event_captured(Handle, mod_dmuc:now(), Payload)
                end
            of
                Actions -> perform(Actions, {Key}, Room)
            catch Class:Reason:Stack ->
                    broken(Room, {Class, Reason, Stack}),
                    plainly_to(Key, Held)
            end;
        undefined ->
            plainly_to(Key, Held)
    end.

-spec plainly_to(stanza(), [jid()]) -> any().
plainly_to(Key, Jids) ->
    plainly([{Key, Jids}]).

-spec split([jid()], [jid()], [jid()], #room{}) -> {[jid()], [jid()], #room{}}.
split([#jid{lserver = Domain, lresource = R} = Jid | Jids], Remote, Local, Room0) ->
    case is_remote(Domain, Room0) of
        {true, Room} when R /= <<>> -> split(Jids, [Jid | Remote], Local, Room);
        {_, Room} -> split(Jids, Remote, [Jid | Local], Room)
    end;
split([], Remote, Local, Room) ->
    {lists:reverse(Remote), lists:reverse(Local), Room}.

-spec is_remote(binary(), #room{}) -> {boolean(), #room{}}.
is_remote(Domain, #room{remote = Known} = Room) ->
    case Known of
        #{Domain := IsRemote} ->
            {IsRemote, Room};
        _ ->
            IsRemote = not ejabberd_router:is_my_route(Domain),
            {IsRemote, Room#room{remote = Known#{Domain => IsRemote}}}
    end.

%% One number for equal stanzas.
-spec token(#payload{}, #room{}) -> {token(), #room{}}.
token(#payload{stanza = Key, facts = Facts, digest = Digest} = Payload,
      #room{tokens = Tokens, payloads = Payloads, newest = Newest} = Room0) ->
    {Token, Room} =
        case Tokens of
            #{Digest := Old} ->
                {Old, Room0};
            _ ->
                New = map_size(Tokens),
                {New, Room0#room{tokens = Tokens#{Digest => New},
                                 payloads = [Payload | Payloads]}}
        end,
    {Token, Room#room{newest = lists:keystore(Facts, 1, Newest, {Facts, Key, Token})}}.

-spec hold(jid(), token(), #room{}) -> #room{}.
hold(To, Token, #room{copies = [{Token, Jids} | Copies]} = Room) ->
    Room#room{copies = [{Token, [To | Jids]} | Copies]};
hold(To, Token, #room{copies = Copies} = Room) ->
    Room#room{copies = [{Token, [To]} | Copies]}.

%% With the copies of the run, which ends.
-spec taken_in(#room{}) -> #room{}.
taken_in(#room{copies = Copies, primary = #primary{gen = Gen}} = Room) ->
    case erase(?RUN) of
        #run{gen = Gen, token = Token, jids = Jids} ->
            keep(Room#room{copies = [{Token, Jids} | Copies]});
        _ ->
            Room
    end.

%% Asks to be called when the room's current event has ended.
-spec mark(#room{}) -> #room{}.
mark(#room{marked = false, jid = Jid} = Room) ->
    tell(self(), {Jid, flush}),
    Room#room{marked = true};
mark(Room) ->
    Room.

%%%===================================================================
%%% Inputs of the core; in the process of the room
%%%===================================================================
-spec handle(message_in(), #primary{}, jid()) -> any().
handle({close, Caller}, _Primary, _Jid) ->
    try close(get(?ROOM))
    after reply(Caller, closed)
    end;
handle({links, Caller}, #primary{gen = Gen}, Jid) ->
    reply(Caller, case get(?ROOM) of
                      #room{handle = Handle} -> mod_dmuc_nif:room_links(Handle, mod_dmuc:now());
                      {off, Gen} -> mod_dmuc_nif:failed(jid:encode(Jid));
                      _ -> []
                  end);
handle(reopen, #primary{gen = Gen} = Primary, Jid) ->
    case get(?ROOM) of
        {off, Gen} -> erase(?ROOM);
        _ -> ok
    end,
    handle(open, Primary, Jid);
handle(Message, Primary, Jid) ->
    case room(Primary, Jid) of
        undefined ->
            ok;
        Room ->
            Unmarked = case Message of
                           flush -> Room#room{marked = false, remote = #{}};
                           tick -> Room#room{timer = undefined};
                           _ -> Room
                       end,
            input(Message, flush(Unmarked))
    end.

-spec reply({pid(), reference()}, term()) -> any().
reply({Pid, Ref}, Answer) ->
    Pid ! {Ref, Answer}.

-spec close(term()) -> ok.
close(#room{primary = #primary{gen = Gen}} = Room) ->
    case flush(Room) of
        #room{} = Flushed -> input(close, Flushed);
        undefined -> ok
    end,
    put(?ROOM, {off, Gen}),
    ok;
close(_) ->
    ok.

-spec flush_held() -> #room{} | undefined.
flush_held() ->
    case get(?ROOM) of
        #room{copies = [_ | _]} = Room -> flush(Room);
        _ -> undefined
    end.

%% Hands what is held to the core.
-spec flush(#room{}) -> #room{} | undefined.
flush(#room{copies = [], poll = false} = Room) ->
    %% A run begins behind a copy.
    keep(Room);
flush(#room{handle = Handle, payloads = Payloads0} = Room0) ->
    Copies = copies(Room0),
    Payloads = lists:reverse(Payloads0),
    Room = keep(Room0#room{copies = [], payloads = [], tokens = #{}, newest = [],
                           holding = #{}, poll = false}),
    try
        Encoded = [encode(Payload) || Payload <- Payloads],
        case lists:sum([length(Jids) || {_, Jids} <- Copies]) > ?DIRTY of
            true -> mod_dmuc_nif:room_event_dirty(Handle, mod_dmuc:now(), Encoded, Copies);
            false -> mod_dmuc_nif:room_event(Handle, mod_dmuc:now(), Encoded, Copies)
        end
    of
        Actions -> perform(Actions, stanzas(Payloads), Room)
    catch Class:Reason:Stack ->
            broken(Room, {Class, Reason, Stack}),
            held_plainly(Copies, stanzas(Payloads)),
            undefined
    end.

%% Everything that is held, in the room's order.
-spec copies(#room{}) -> [copies()].
copies(Room) ->
    #room{copies = Copies} = taken_in(Room),
    lists:foldl(fun({Token, Jids}, Rest) -> [{Token, lists:reverse(Jids)} | Rest] end, [], Copies).

%% What the core has still got is not written again.
-spec encode(#payload{}) -> mod_dmuc_nif:payload_in().
encode(#payload{stanza = Stanza, facts = Facts, digest = Digest, known = undefined}) ->
    mod_dmuc_xml:encode(Stanza, Facts, Digest);
encode(#payload{known = Id}) ->
    {known, Id}.

%% By token.
-spec stanzas([#payload{}]) -> tuple().
stanzas(Payloads) ->
    list_to_tuple([Stanza || #payload{stanza = Stanza} <- Payloads]).

%% Any other call of the core.
-spec input(message_in() | close, #room{} | undefined) -> #room{} | undefined.
input(_Message, undefined) ->
    undefined;
input(flush, Room) ->
    Room;
input(Message, #room{handle = Handle} = Room) ->
    try call(Message, Handle, mod_dmuc:now()) of
        Actions -> perform(Actions, {}, Room)
    catch Class:Reason:Stack ->
            broken(Room, {Class, Reason, Stack}),
            undefined
    end.

-spec call(message_in() | close, mod_dmuc_nif:native(), mod_dmuc_nif:millis()) ->
          mod_dmuc_nif:actions().
call(open, Handle, _Now) ->
    ok = mod_dmuc_nif:room_occupants_asked(Handle),
    {undefined, []};
call({may_show_domains, MayShow}, Handle, Now) ->
    ok = mod_dmuc_nif:room_may_show_domains(Handle, MayShow),
    call(tick, Handle, Now);
call(tick, Handle, Now) ->
    mod_dmuc_nif:room_tick(Handle, Now);
call(close, Handle, Now) ->
    mod_dmuc_nif:room_close(Handle, Now);
call({occupants, Jids}, Handle, Now) ->
    mod_dmuc_nif:room_occupants(Handle, Now, Jids);
call({support, Domain, Yes}, Handle, Now) ->
    mod_dmuc_nif:room_support(Handle, Now, Domain, Yes);
call({setup_result, Domain, Id, Body}, Handle, Now) ->
    mod_dmuc_nif:room_setup_result(Handle, Now, Domain, Id, Body);
call({report, Domain, Body}, Handle, Now) ->
    mod_dmuc_nif:room_report(Handle, Now, Domain, Body);
call({bounced, Domain, Id, Fate}, Handle, Now) ->
    mod_dmuc_nif:room_bounced(Handle, Now, Domain, Id, Fate).

%%%===================================================================
%%% Actions; in the process of the room
%%%===================================================================

%% Carries everything out before the core is called again.
-spec perform(mod_dmuc_nif:actions(), tuple(), #room{}) -> #room{} | undefined.
perform({Wake, Actions}, Stanzas, Room0) ->
    Room = keep(wake(Wake, Room0)),
    Inputs = lists:flatmap(
               fun(Action) ->
                       try action(Action, Stanzas, Room)
                       catch Class:Reason:Stack ->
                               mod_dmuc:fault("cannot carry out an action of the core",
                                              {Class, Reason, Stack}),
                               []
                       end
               end, Actions),
    lists:foldl(fun input/2, Room, Inputs).

-spec wake(undefined | mod_dmuc_nif:millis(), #room{}) -> #room{}.
wake(undefined, Room) ->
    Room;
wake(At, #room{timer = Old, jid = Jid, primary = #primary{server = Server}} = Room) ->
    is_reference(Old) andalso erlang:cancel_timer(Old, [{async, true}, {info, false}]),
    After = max(0, At - mod_dmuc:now()),
    Room#room{timer = erlang:send_after(After, Server, {tell, self(), {Jid, tick}})}.

-spec action(mod_dmuc_nif:action(), tuple(), #room{}) -> [message_in()].
action({envelope, Domain, Id, #xmlel{name = Name} = El}, _Stanzas,
       #room{jid = #jid{lserver = MucHost} = Jid}) ->
    ejabberd_router:route(mod_dmuc_xml:message(Jid, jid:make(Domain), Id, El)),
    Name == <<"resume">> andalso note_split(MucHost, Domain),
    [];
action({plain, Ref, To}, Stanzas, _Room) ->
    Stanza = case Ref of
                 {raw, Xml} -> mod_dmuc_xml:decode(Xml);
                 Token -> element(Token + 1, Stanzas)
             end,
    plainly([{Stanza, [mod_dmuc_xml:jid(Jid) || Jid <- To]}]),
    [];
action({setup, Domain, Id, El}, _Stanzas, #room{jid = Jid, primary = Primary}) ->
    #primary{server = Server, server_host = Host} = Primary,
    ejabberd_router:route_iq(mod_dmuc_xml:iq(Jid, jid:make(Domain), El),
                             {setup, self(), Jid, Domain, Id}, Server,
                             mod_dmuc_opts:get(Host, setup_timeout)),
    [];
action({ask_support, Domain}, _Stanzas, #room{jid = Jid, primary = Primary}) ->
    ask_support(Primary, mod_dmuc_xml:ljid(Jid), Domain);
action({support_seen, Domain}, _Stanzas, #room{primary = #primary{support = Support} = Primary}) ->
    mod_dmuc_nif:support_announced(Support, mod_dmuc:now(), Domain),
    publish_support(Primary, Domain),
    [];
action({forget_support, Domain}, _Stanzas, #room{primary = Primary}) ->
    #primary{host = MucHost, support = Support} = Primary,
    mod_dmuc_nif:support_forget(Support, Domain),
    mod_dmuc_store:forget_support(MucHost, Domain),
    [];
action({fail, To}, _Stanzas, #room{jid = Jid}) ->
    [mod_muc_room:route(self(), mod_dmuc_xml:failure(mod_dmuc_xml:jid(Occupant), Jid))
     || Occupant <- To],
    [].

-spec ask_support(#primary{}, ljid(), binary()) -> [message_in()].
ask_support(#primary{host = MucHost, support = Support} = Primary, Room, Domain) ->
    Now = mod_dmuc:now(),
    case mod_dmuc_nif:support_export(Support, Now, Domain) of
        undefined ->
            case mod_dmuc_store:get_support(MucHost, Domain) of
                {Yes, Remaining} ->
                    mod_dmuc_nif:support_import(Support, Now, Domain, Yes, Remaining);
                undefined ->
                    ok
            end;
        _ ->
            ok
    end,
    case mod_dmuc_nif:support_ask(Support, Now, Domain, Room) of
        yes -> [{support, Domain, true}];
        no -> [{support, Domain, false}];
        query -> ask(Primary, Domain), [];
        wait -> []
    end.

%% After an attempt to connect has failed, ejabberd sends everything for that domain back for up to
%% s2s_max_retry_delay, five minutes, without trying again. A link that waits to be resumed is worth
%% an attempt more often, whether its question came before that or after. The process of the stream
%% may be another node's.
-spec note_split(binary(), binary()) -> ok.
note_split(MucHost, Domain) ->
    lists:foreach(fun(Pid) -> Pid ! {?MODULE, split} end,
                  ejabberd_s2s:get_connections_pids({MucHost, Domain})).

-spec s2s_out_handle_info(map(), term()) -> map() | {stop, map()}.
s2s_out_handle_info(State, {?MODULE, split}) ->
    {stop, retry_sooner(State#{dmuc_asked => mod_dmuc:now()})};
s2s_out_handle_info(State, _Info) ->
    State.

%% ejabberd's own handler of the hook has come before.
-spec s2s_out_closed(map(), term()) -> map().
s2s_out_closed(State, _Reason) ->
    retry_sooner(State).

%% Once: every time it would begin to wait anew.
-spec retry_sooner(map()) -> map().
retry_sooner(#{on_route := bounce, dmuc_asked := Asked} = State)
  when not is_map_key(dmuc_retry, State) ->
    case mod_dmuc:now() - Asked < ?ASKED_LATELY of
        true ->
            Delay = min(?RETRY_AFTER, ejabberd_option:s2s_max_retry_delay()),
            xmpp_stream_out:set_timeout(State#{dmuc_retry => true}, Delay);
        false ->
            State
    end;
retry_sooner(State) ->
    State.

%% As plain MUC sends it, past our own capture.
-spec plainly([{stanza(), [jid()]}]) -> ok.
plainly(Stanzas) ->
    put(?BYPASS, true),
    try
        [ejabberd_router:route(xmpp:set_to(Stanza, To))
         || {Stanza, Tos} <- Stanzas, To <- Tos],
        ok
    after
        erase(?BYPASS)
    end.

-spec held_plainly([copies()], tuple()) -> ok.
held_plainly(Copies, Stanzas) ->
    plainly([{element(Token + 1, Stanzas), To} || {Token, To} <- Copies]).

%%%===================================================================
%%% Faults
%%%===================================================================

%% Whatever goes wrong in here, the room goes on as if we were not there.
-spec guard(fun(() -> T), T, fun((T) -> R)) -> R.
guard(Fun, Default, Then) ->
    Result = try Fun()
             catch Class:Reason:Stack ->
                     mod_dmuc:fault("fault at the primary", {Class, Reason, Stack}),
                     drop_room(Reason),
                     Default
             end,
    Then(Result).

%% After a fault outside of flush/1: what is held must go out.
-spec drop_room(term()) -> ok.
drop_room(Reason) ->
    case get(?ROOM) of
        #room{payloads = Payloads} = Room ->
            Copies = copies(Room),
            off(Room, Reason),
            held_plainly(Copies, stanzas(lists:reverse(Payloads)));
        _ ->
            ok
    end.

-spec broken(#room{}, {atom(), term(), list()}) -> ok.
broken(Room, {_, Reason, _} = Fault) ->
    mod_dmuc:fault("fault at the primary", Fault),
    off(Room, Reason).

%% After a panic the handle may hold half a change and is not used again; otherwise its links end in
%% an orderly way. A new handle follows.
-spec off(#room{}, term()) -> ok.
off(#room{jid = Jid, handle = Handle, primary = #primary{gen = Gen, server = Server} = Primary},
    Reason) ->
    put(?ROOM, {off, Gen}),
    try Reason == nif_panicked orelse ended(Primary, Jid, Handle)
    catch _:_ -> ok
    end,
    _ = erlang:send_after(?REOPEN_AFTER, Server, {reopen, self(), Jid}),
    ok.
