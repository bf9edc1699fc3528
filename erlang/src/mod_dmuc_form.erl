%%% What owners say in the configuration forms of rooms (XEP-0045 section 10.2): whether servers of
%%% occupants may learn of each other.
%%%
%%% mod_muc refuses forms with fields that it does not know, and has no place for what they say. So the
%%% field is taken out of a form on its way to the room, its value counts when the room has accepted the
%%% rest, and is kept in Mnesia as long as the room lasts. All hooks run in the process of the room.
-module(mod_dmuc_form).

%% Hooks
-export([get_room_config/4, muc_process_iq/2, remove_room/3, room_destroyed/3, room_destroyed/4]).
%% For the other modules of mod_dmuc
-export([init/0, may_show_domains/1, answered/2]).

-include("xmpp.hrl").
-include("mod_dmuc.hrl").

%% The room whose form is asked for.
-define(ASKED, mod_dmuc_form_asked).
%% What has been said in a form that the room has not answered yet.
-define(SAID, mod_dmuc_form_said).

%% A room whose owner has said yes.
-record(dmuc_room, {key :: room(), may_show_domains = true :: true}).

-type room() :: {Name :: binary(), MucHost :: binary()}.
-type fields() :: [tuple()].

-spec init() -> ok.
init() ->
    ejabberd_mnesia:create(?MODULE, dmuc_room, [{disc_copies, [node()]},
                                                {attributes, record_info(fields, dmuc_room)}]),
    ok.

%% Whether the owner of the room has said so. A table that cannot be read is no reason to do without a link.
-spec may_show_domains(jid()) -> boolean().
may_show_domains(#jid{luser = Name, lserver = MucHost}) ->
    try mnesia:dirty_read(dmuc_room, {Name, MucHost}) /= []
    catch exit:{aborted, _} -> false
    end.

%%%===================================================================
%%% Hooks
%%%===================================================================
-spec muc_process_iq(iq() | ignore, term()) -> iq() | ignore | {stop, iq()}.
muc_process_iq(#iq{type = get, to = Room, sub_els = [#muc_owner{}]} = IQ, _State) ->
    put(?ASKED, Room),
    IQ;
muc_process_iq(#iq{type = set, sub_els = [#muc_owner{config = #xdata{type = submit} = Form} = El]} =
                   IQ, _State) ->
    {Name, _} = mod_dmuc_nif:owner_field(),
    case lists:keytake(Name, #xdata_field.var, Form#xdata.fields) of
        {value, #xdata_field{values = Values}, Rest} ->
            said(value(Values),
                 IQ#iq{sub_els = [El#muc_owner{config = Form#xdata{fields = Rest}}]});
        false ->
            IQ
    end;
muc_process_iq(Acc, _State) ->
    Acc.

-spec said(boolean() | undefined, iq()) -> iq() | {stop, iq()}.
said(undefined, #iq{lang = Lang} = IQ) ->
    {Name, _} = mod_dmuc_nif:owner_field(),
    Text = {"Field '~s' must be a boolean", [Name]},
    {stop, xmpp:make_error(IQ, xmpp:err_bad_request(Text, Lang))};
said(Value, #iq{id = Id, from = From} = IQ) ->
    put(?SAID, {Id, jid:tolower(From), Value}),
    IQ.

%% As XEP-0004 section 3.3 has it.
-spec value([binary()]) -> boolean() | undefined.
value([<<"1">>]) -> true;
value([<<"true">>]) -> true;
value([<<"0">>]) -> false;
value([<<"false">>]) -> false;
value(_) -> undefined.

%% An IQ of the room has come out of it: the answer to a form, it may be. What it says of servers from
%% now on, if it is one.
-spec answered(jid(), iq()) -> {may_show_domains, boolean()} | undefined.
answered(Room, #iq{type = Type, id = Id, to = To}) ->
    case get(?SAID) of
        {Id, LTo, Value} when Type == result; Type == error ->
            case jid:tolower(To) of
                LTo ->
                    erase(?SAID),
                    accepted(Type, Room, Value);
                _ ->
                    undefined
            end;
        _ ->
            undefined
    end.

-spec accepted(result | error, jid(), boolean()) -> {may_show_domains, boolean()} | undefined.
accepted(error, _Room, _Value) ->
    undefined;
accepted(result, #jid{luser = Name, lserver = MucHost}, Value) ->
    case Value of
        true -> mnesia:dirty_write(#dmuc_room{key = {Name, MucHost}});
        false -> forget(Name, MucHost)
    end,
    {may_show_domains, Value}.

-spec get_room_config(fields(), term(), jid(), binary()) -> fields().
get_room_config(Fields, _State, _From, _Lang) ->
    case erase(?ASKED) of
        #jid{lserver = MucHost} = Room ->
            case mod_dmuc_primary:find(MucHost) of
                #primary{shared = Shared} -> Fields ++ [field(Room) || mod_dmuc_nif:asks_owners(Shared)];
                undefined -> Fields
            end;
        undefined ->
            Fields
    end.

-spec field(jid()) -> #xdata_field{}.
field(Room) ->
    {Name, Label} = mod_dmuc_nif:owner_field(),
    Value = case may_show_domains(Room) of
                true -> <<"1">>;
                false -> <<"0">>
            end,
    #xdata_field{type = boolean, var = Name, label = Label, values = [Value]}.

%% A room that was kept is kept no more.
-spec remove_room(binary(), binary(), binary()) -> ok.
remove_room(_ServerHost, Name, MucHost) ->
    forget(Name, MucHost).

%% Up to 23.10 without the room's persistence, and only for rooms without.
-spec room_destroyed(binary(), binary(), binary()) -> ok.
room_destroyed(ServerHost, Name, MucHost) ->
    room_destroyed(ServerHost, Name, MucHost, false).

-spec room_destroyed(binary(), binary(), binary(), boolean()) -> ok.
room_destroyed(_ServerHost, Name, MucHost, false) ->
    forget(Name, MucHost);
room_destroyed(_ServerHost, _Name, _MucHost, true) ->
    ok.

-spec forget(binary(), binary()) -> ok.
forget(Name, MucHost) ->
    mnesia:dirty_delete(dmuc_room, {Name, MucHost}).
